"""What ``mesh-agent status`` shows: the running agent's own /info, in words."""

import http.client
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mesh.kit.settings import Address, parse_address

TIMEOUT_S = 3.0


def where(state_dir: Path, configured: Address) -> Address:
    """Where the agent of this folder listens: as it announced, else as it was told to."""
    try:
        return parse_address(str(json.loads((state_dir / "listening.json").read_text())["http"]))
    except (OSError, ValueError, KeyError, TypeError):
        return configured


def ask(address: Address) -> dict[str, Any]:
    """The agent's /info. OSError when nobody answers, or not like an agent."""
    connection = http.client.HTTPConnection(address.host, address.port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/info")
        info = json.loads(connection.getresponse().read())
    except (http.client.HTTPException, ValueError) as exc:
        raise OSError("what answers there is no agent") from exc
    finally:
        connection.close()
    if not isinstance(info, dict) or "agent_version" not in info:
        raise OSError("what answers there is no agent")
    return info


def shown(info: Mapping[str, Any]) -> str:
    """The same for people."""
    connection = "connected" if info.get("connected") else f"not connected: {info.get('trouble') or 'not yet'}"
    lines = [
        f"node           {info.get('node_id')}",
        f"agent          {info['agent_version']} ({info.get('build_date')}), {info.get('checksum')}",
        f"control plane  {connection}",
        f"tunnels        {', '.join(info.get('tunnels', ())) or 'none'}",
        f"requests       {info.get('requests', 0)}",
    ]
    workers = info.get("workers") or []
    for w in workers:
        progress = f"{w['phase']} {w['progress_percent']} %"
        lines.append(f"worker         {w['worker_id']}  {w['model']}  {progress}  {w['detail']}".rstrip())
    if not workers:
        lines.append("worker         none")
    return "\n".join(lines)

"""Which reports of demand can be kept."""

import pytest

from control_plane.core.demand import MAX_MODELS, ModelDemand, check_report
from mesh.kit.errors import InvalidInput


def test_a_report_names_so_many_models_and_no_more() -> None:
    many = [ModelDemand(str(n)) for n in range(MAX_MODELS + 1)]
    check_report(many[:MAX_MODELS])
    with pytest.raises(InvalidInput, match="models: at most 1000, not 1001"):
        check_report(many)


def test_a_report_names_a_model_once() -> None:
    with pytest.raises(InvalidInput, match="models: each model once"):
        check_report([ModelDemand("m", waiting=1), ModelDemand("m", waiting=2)])

"""The page that Prometheus reads, read by Prometheus' own parser."""

from prometheus_client.parser import text_string_to_metric_families

from node_agent.core.exposition import Family, labelled, one, render


def test_the_page_is_what_prometheus_reads() -> None:
    families: list[Family] = [
        one("up", "It runs.", 1),
        one("busy_seconds_total", "Since the start.", 2.5, "counter"),
        labelled("load", "By model.", ("model", "gpu"), [(("tiny", "0"), 3), (("tiny", "1"), None)]),
        labelled("nothing", "Known of nobody.", ("model",), []),
    ]
    read = list(text_string_to_metric_families(render(families).decode()))
    assert [(family.name, family.type, family.documentation) for family in read] == [
        ("up", "gauge", "It runs."),
        ("busy_seconds", "counter", "Since the start."),
        ("load", "gauge", "By model."),
        ("nothing", "gauge", "Known of nobody."),
    ]
    assert [(sample.name, sample.labels, sample.value) for family in read for sample in family.samples] == [
        ("up", {}, 1.0),
        ("busy_seconds_total", {}, 2.5),
        ("load", {"model": "tiny", "gpu": "0"}, 3.0),
    ]


def test_a_label_may_hold_anything() -> None:
    odd = 'a "quoted" \\ back\nslash} 1'
    (family,) = text_string_to_metric_families(render([labelled("x", "y", ("l",), [((odd,), 1)])]).decode())
    assert family.samples[0].labels == {"l": odd}

"""When an engine is sick, and when it is started again."""

from node_agent.core.health import Health, Probes, Restarts


def test_nothing_is_known_before_the_first_answer() -> None:
    assert Probes().health is Health.UNKNOWN
    assert Probes().after(alive=False).health is Health.UNKNOWN
    assert Probes().after(alive=True).health is Health.HEALTHY


def test_one_missed_probe_does_not_make_an_engine_sick_but_five_in_a_row_do() -> None:
    probes = Probes().after(alive=True)
    verdicts = []
    for _ in range(5):
        probes = probes.after(alive=False)
        verdicts.append(probes.health)
    assert verdicts == [Health.UNKNOWN] * 4 + [Health.SICK]


def test_an_answer_in_between_begins_the_count_anew() -> None:
    probes = Probes()
    for alive in (False, False, False, False, True, False, False):
        probes = probes.after(alive=alive)
    assert (probes.health, probes.failed_in_a_row) == (Health.UNKNOWN, 2)


def test_restarts_are_tried_after_one_two_four_and_at_most_sixty_seconds() -> None:
    restarts, delays = Restarts(), []
    assert restarts.delay_s == 0
    for _ in range(9):
        restarts = restarts.failed(now=0.0)
        delays.append(restarts.delay_s)
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_five_healthy_minutes_wipe_the_slate() -> None:
    worn = Restarts(failures=6)
    assert worn.healthy(now=10.0).healthy(now=200.0).failed(now=310.0).delay_s == 1


def test_a_short_healthy_spell_does_not() -> None:
    worn = Restarts(failures=2)
    assert worn.healthy(now=10.0).failed(now=309.0).delay_s == 4
    assert worn.healthy(now=10.0).failed(now=309.0).healthy_since is None

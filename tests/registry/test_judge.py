"""What counts as proof that a served model is the trained one."""

from outcrop.registry.probes import Certificate, Probe, judge

PROBES = [Probe([1, 2, 3], [1, 2], 10.0, 12.0), Probe([4, 5], [1], 5.0, 5.5)]


def test_the_same_losses_are_proof() -> None:
    assert judge(PROBES, [10.0, 5.0], [12.0, 5.5], "r") == Certificate("proven", "r", 2, 0.0, 0.2)


def test_other_losses_are_not() -> None:
    assert "probe 1 of 2" in str(judge(PROBES, [10.1, 5.0], [12.0, 5.5], "r"))
    assert "base answers" in str(judge(PROBES, [12.0, 5.5], [12.0, 5.5], "r"))


def test_rounded_weights_may_be_farther_off_but_not_so_far_that_they_could_be_the_base() -> None:
    near = judge(PROBES, [10.1, 5.0], [12.1, 5.5], "r", is_rounded=True)
    assert isinstance(near, Certificate)
    assert near.verdict == "proven"
    assert "probe 1 of 2" in str(judge(PROBES, [11.0, 5.0], [12.1, 5.5], "r", is_rounded=True))
    alike = [Probe([1, 2, 3], [1, 2], 10.0, 10.3)]
    hidden = judge(alike, [10.2], [10.5], "r", is_rounded=True)
    assert isinstance(hidden, Certificate)
    assert hidden.verdict == "unproven"

"""`outcrop advise` as a user runs it: what it says first, what it recommends, and what it refuses."""

import json
import subprocess
import sys

import pytest

from outcrop.demo.tickets import tickets

BASE = "outcrop.pebble-v1:0"
NAMES = "Anna Tom Maria Peter Lena Omar Julia David Nina Ravi Clara Hugo Emma Louis Sara Victor Alice Bruno Carla Dmitri".split()
COLORS = "red blue green black white yellow brown purple orange pink grey silver gold violet cream".split()


def advise(home, rows, *arguments, ok=True):
    command = [
        sys.executable,
        "-m",
        "outcrop",
        "advise",
        str(rows),
        "--base",
        BASE,
        "--out",
        str(rows.parent / "advice"),
        *arguments,
    ]
    environment = {"OUTCROP_HOME": str(home), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=rows.parent)
    assert (done.returncode == 0) is ok, done.stdout + done.stderr
    return " ".join((done.stdout + done.stderr).split())


def written(folder, rows):
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "rows.jsonl"


@pytest.mark.slow
def test_what_the_base_does_already_is_not_tuned(tmp_path) -> None:
    rows = written(
        tmp_path,
        [
            {
                "prompt": f"{name}: {color}\n\nWhat is the color of {name}?",
                "referenceResponse": f"The color of {name} is {color}.",
            }
            for name in NAMES
            for color in COLORS
        ],
    )
    said = advise(tmp_path / "home", rows, "--price", "0.25,1.25")
    assert said.index("It will take about") < said.index("plain prompt")
    assert "Do not tune" in said
    found = json.loads((tmp_path / "advice/advice.json").read_text())
    assert found["choice"] == "prompt"
    assert {option["name"] for option in found["options"]} == {"prompt", "few-shot", "tune", "tune + few-shot"}
    assert all(option["cost_a_thousand"] > 0 for option in found["options"])
    assert [point["is_guess"] for point in found["curve"]["points"]] == [False, False, False, True, True] or found[
        "curve"
    ]["points"][-1]["is_guess"]
    assert not (tmp_path / "advice/runs").exists()
    assert "<html" in (tmp_path / "advice/advice.html").read_text()
    assert "<html" in (tmp_path / "advice/comparison.html").read_text()


@pytest.mark.slow
def test_a_form_of_the_house_is_tuned_and_a_prompts_common_part_can_go(tmp_path) -> None:
    drawn = tickets(9)
    some = [next(drawn) for _ in range(300)]
    rows = written(tmp_path, [{"system": "Give the code of the desk.", "category": one.form["category"],
                               "messages": [{"role": "user", "content": one.text}, {"role": "assistant", "content": f"{one.form['category'][:2].upper()}-{one.form['order']}"}]} for one in some])  # fmt: skip
    advise(tmp_path / "home", rows, "--category", "category")
    found = json.loads((tmp_path / "advice/advice.json").read_text())
    assert found["choice"].startswith("tune")
    assert any(
        "the system prompt" in reason and "input tokens a request instead of" in reason for reason in found["reasons"]
    )
    assert "was left out of a training" in found["table"][2]["measured"]


def test_what_it_will_take_is_said_without_doing_it(tmp_path) -> None:
    rows = written(
        tmp_path,
        [{"prompt": f"{name} {color}", "referenceResponse": color} for name in NAMES[:10] for color in COLORS[:10]],
    )
    said = advise(tmp_path / "home", rows, "--plan")
    assert "It will take about" in said
    assert not (tmp_path / "advice/advice.json").exists()


@pytest.mark.parametrize(("rows", "said"), [
    ([{"prompt": "a"}] * 80, "line 1 has no reference answer"),
    ([{"prompt": "a", "referenceResponse": "b"}] * 80, "1 different prompts"),
    ([{"prompt": f"{number}", "referenceResponse": "b"} for number in range(30)], "30 different prompts"),
])  # fmt: skip
def test_too_little_is_refused_in_words(tmp_path, rows, said) -> None:
    assert said in advise(tmp_path / "home", written(tmp_path, rows), ok=False)

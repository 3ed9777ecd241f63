"""The report in a real browser: opened from disk, with the network off."""

import base64
import io
import json
import re
import shutil
import time
from dataclasses import replace

import jax
import numpy as np
import pyarrow.compute as pc
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import expect

from hotoven import levels
from hotoven.evaluation.alarms import alarm_table
from hotoven.evaluation.knowing import read_recorded, score_of
from hotoven.evaluation.scores import Coefficients
from hotoven.report.page import write_report
from hotoven.report.style import ORANGE
from hotoven.storage import read_json, read_table, write_json
from report_runs import COINRUN, GRID, HOSTILE, INSPECTED, MIN_LEAD, make_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    runs = [make_run(folder / "coin", "coinrun"), make_run(folder / "grid", "lavagrid")]
    write_report(runs, folder / "report.html")
    return folder


@pytest.fixture
def at(page, folder):
    """Opens the report at an address within it, once what it shows first is there."""
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.context.set_offline(True)

    def open_at(address="", file=folder / "report.html"):
        page.goto(f"file://{file}{address}")
        page.wait_for_selector("body[data-charts]")
        return page

    yield open_at
    outside = [url for url in asked if not url.startswith(("file://", "data:"))]
    assert not outside


def counts(page):
    """caught, missed and episodes with a false alarm, as the page says."""
    text = {
        name: page.locator(f'[data-count="{name}"] dd').inner_text()
        for name in ("caught", "missed", "false alarms")
    }
    wrong, share = (
        re.search(pattern, text["false alarms"])[1] for pattern in (r"\((\d+) of", r"^([\d.]+) per")
    )
    caught, missed = (int(text[name].split(" of ")[0]) for name in ("caught", "missed"))
    return caught, missed, int(wrong), float(share)


def until(page, expression):
    """Waits until that is true in the page, whose policy forbids Playwright's own way to wait."""
    end = time.monotonic() + 15
    while not page.evaluate(expression):
        assert time.monotonic() < end, expression
        page.wait_for_timeout(50)


def set_threshold(page, place):
    slider = page.get_by_label("Threshold", exact=True)
    slider.evaluate(
        "(slider, place) => { slider.value = place;"
        " slider.dispatchEvent(new Event('input', { bubbles: true })); }",
        place,
    )


def test_the_report_opens_from_disk_with_the_network_off(at):
    page = at()
    expect(page.get_by_role("heading", name="Findings", exact=True)).to_be_visible()
    expect(page.locator(".plot .main-svg").first).to_be_visible()
    for part in ("findings", "rates", "ends", "alarms", "inspector", "about"):
        expect(page.locator(f"#{part} h2")).to_be_visible()
    assert page.locator(".finding").count() == 3
    expect(page.locator("#about")).to_contain_text("0123456789abcdef")


# Goes through all thresholds of the slider; what is said of catastrophes and of false alarms.
EVERY_PLACE = """() => {
  const slider = document.querySelector('#alarms input[type=range]');
  const said = (name) => document.querySelector(`[data-count="${name}"] dd`).textContent;
  return Array.from({ length: Number(slider.max) + 1 }, (_, place) => {
    slider.value = place;
    slider.dispatchEvent(new Event('input', { bubbles: true }));
    return [said('caught'), said('false alarms')];
  });
}"""


def first_alarms(score, recorded, thresholds):
    """The first alarms of those who died, for each threshold that has some; NaN: none."""
    alarm = recorded.valid[None] & (score[None] > thresholds[:, None, None])  # [K, L, T]
    first = np.where(alarm.any(axis=2), alarm.argmax(axis=2).astype(float), np.nan)
    return np.where(recorded.died, first, np.nan)


@pytest.mark.parametrize("score", ["mean and std", "head", "best pair"])
@pytest.mark.parametrize("size", [10, 200])
def test_the_slider_changes_the_counts_to_those_of_the_tables(at, folder, score, size):
    page = at(f"#run=coin&episode={size}/mean/0&score={score}")
    rows = read_table(folder / "coin" / "alarms.parquet").filter(
        (pc.field("num_train_levels") == size)
        & (pc.field("acting") == "mean")
        & (pc.field("score") == score)
    )
    # the page's own thresholds, in order, are what the slider goes through
    places = int(page.get_by_label("Threshold", exact=True).get_attribute("max"))
    recorded = read_recorded(
        read_table(folder / "coin" / "steps.parquet"), "test", size, "mean", 60,
        ("mu", "sigma", "head"),
    )  # fmt: skip
    own = score_of(score, recorded, Coefficients(-1.0, 0.37))
    valid = own[recorded.valid]
    some = np.sort(valid)[(np.arange(200) / 200 * (len(valid) - 1)).astype(int)]
    peaks = np.where(recorded.valid, own, -np.inf).max(axis=1)
    thresholds = np.concatenate([[-np.inf], np.unique(np.concatenate([peaks, some]))])
    assert places == len(thresholds) - 1
    told = alarm_table(own, recorded.num_steps, recorded.died, thresholds, MIN_LEAD)
    table = {row["thresholds"]: row for row in rows.to_pylist()}
    checked = 0
    said = page.evaluate(EVERY_PLACE)
    assert [int(text.split(" of ")[0]) for text, _ in said] == told.num_announced.tolist()
    wrong = [int(re.search(r"\((\d+) of", text)[1]) for _, text in said]
    assert wrong == told.num_false.tolist()
    assert MIN_LEAD in recorded.num_steps - 1 - first_alarms(own, recorded, thresholds)
    set_threshold(page, places // 2)
    caught, missed, wrong, share = counts(page)
    assert caught == told.num_announced[places // 2]
    assert missed == told.num_unannounced[places // 2]
    assert share == pytest.approx(100 * wrong / len(peaks), abs=0.05)
    for threshold in list(table)[:: len(table) // 6]:
        place = int(np.flatnonzero(thresholds == threshold)[0])
        set_threshold(page, place)
        row = table[threshold]
        assert counts(page)[:3] == tuple(
            row[f"num_{name}"] for name in ("announced", "unannounced", "false")
        )
        assert page.locator('[data-count="alarms that began"] dd').inner_text() == str(
            row["num_alarms"]
        )
        checked += 1
    assert checked >= 5


def test_the_list_and_the_point_follow_the_threshold_at_once(at):
    page = at("#run=coin&episode=10/mean/0")
    place = page.locator("#alarms .place")
    point = "() => document.querySelector('#alarms .plot').data[2].x[0]"
    set_threshold(page, 0)
    page.get_by_label("Alarm", exact=True).select_option("quiet")
    assert place.inner_text() == "none"
    assert page.evaluate(point) == 1
    last = page.get_by_label("Threshold", exact=True).get_attribute("max")
    set_threshold(page, int(last))
    assert place.inner_text().startswith("1 to ")
    assert page.evaluate(point) == 0


def test_the_list_is_sorted_and_filtered(at):
    page = at("#run=coin&episode=10/mean/0")
    page.get_by_label("Outcome", exact=True).select_option("catastrophe")
    rows = page.locator("#alarms tbody tr")
    ends = [row.split("\t")[1] for row in rows.all_inner_texts()]
    assert all(re.fullmatch(r"catastrophe \((lava|saw|monster)\)", end) for end in ends), ends
    button = page.get_by_role("button", name="steps", exact=True)
    button.click()
    assert page.locator("#alarms th[aria-sort]").get_attribute("aria-sort") == "ascending"
    steps = [int(row.split("\t")[2]) for row in rows.all_inner_texts()]
    assert steps == sorted(steps)
    button.click()
    steps = [int(row.split("\t")[2]) for row in rows.all_inner_texts()]
    assert steps == sorted(steps, reverse=True)
    rows.nth(1).click()
    level = rows.nth(1).inner_text().split("\t")[0]
    expect(page.locator("#inspector .episode")).to_contain_text(f"Test level {level} ")


def test_a_deep_link_opens_its_step_and_the_address_follows(at, folder):
    page = at("#run=coin&episode=200/mean/3&step=7&with=10/random_step")
    expect(page.locator("#inspector .episode")).to_contain_text("Test level 3 (id 3)")
    panes = page.locator("#inspector .pane")
    assert panes.count() == 2
    expect(panes.nth(0).locator(".state")).to_contain_text("Step 7: right")
    expect(panes.nth(1).locator("h3")).to_contain_text("random member each step, trained on 10")
    assert page.locator("#inspector").get_by_label("Step", exact=True).input_value() == "7"
    page.get_by_role("button", name="Step →").click()
    until(page, "location.hash.includes('step=8')")
    link = page.get_by_role("link", name="Link to this step").get_attribute("href")
    assert link == "#run=coin&episode=200/mean/3&step=8&with=10/random_step"
    rows = read_table(folder / "grid" / "episodes.parquet").filter(
        (pc.field("num_train_levels") == 10)
        & (pc.field("method") == "mean+blocker")
        & (pc.field("length") > 3)
    )
    level = rows["level_index"][0].as_py()
    page.evaluate(f"location.hash = '#run=grid&episode=10/mean+blocker/{level}&step=2'")
    expect(page.locator("#inspector .episode")).to_contain_text(f"Test level {level} (id {level})")
    expect(page.locator("#inspector .state").first).to_contain_text("Step 2: ")
    expect(page.get_by_label("Run", exact=True)).to_have_value("grid")


LOST = "The link names an episode that is not in this file."


def test_a_link_to_nothing_shows_what_there_is(at):
    page = at("#run=gone&episode=9/nobody/99999&step=x&with=y&threshold=z&score=%E0%A4%A")
    expect(page.locator("#inspector .episode")).to_contain_text("Test level")
    expect(page.locator("#note")).to_have_text(LOST)
    shown = page.locator("#inspector .episode").inner_text()
    page.evaluate("location.hash = '#run=coin&episode=10/mean/5'")
    expect(page.locator("#inspector .episode")).to_contain_text("Test level 5 ")
    expect(page.locator("#note")).to_be_hidden()
    for strange in ("run=coin&episode=10/mean/99999", "run=coin&episode=10/mean/", "run=x"):
        page.evaluate(f"location.hash = '#{strange}'")
        expect(page.locator("#note")).to_have_text(LOST)
        expect(page.locator("#inspector .episode")).to_contain_text("Test level 5 ")
        page.evaluate("location.hash = '#run=coin&episode=10/mean/5'")
        expect(page.locator("#note")).to_be_hidden()
    assert "Test level 5 " not in shown


def test_what_a_link_leaves_out_is_as_at_the_beginning(at):
    page = at("#run=coin&episode=10/mean/3")
    said = page.locator("output.threshold")
    first = said.inner_text()
    page = at("#run=coin&episode=10/mean/2&with=200/mean&score=head&threshold=0.1")
    assert page.locator("#inspector .pane").count() == 2
    page.evaluate("location.hash = '#run=coin&episode=10/mean/3&threshold='")
    expect(page.locator("#inspector .episode")).to_contain_text("Test level 3 ")
    expect(page.locator("#inspector .pane")).to_have_count(1)
    expect(page.get_by_label("Score of danger", exact=True)).to_have_value("mean and std")
    expect(said).to_have_text(first)


def test_a_threshold_with_a_promise_is_no_longer_named_once_left(at):
    page = at("#run=coin&episode=10/mean/3")
    promises = page.get_by_label("Go to a threshold with a promise")
    names = page.get_by_label("Score of danger", exact=True).locator("option")
    for name in names.evaluate_all("all => all.map((one) => one.value)"):
        page.get_by_label("Score of danger", exact=True).select_option(name)
        if promises.is_visible():
            break
    promises.select_option(index=1)
    assert promises.input_value() != ""
    set_threshold(page, 1)
    assert promises.input_value() == ""


def test_the_last_of_quick_changes_is_what_is_shown(at):
    page = at("#run=coin&episode=10/mean/3")
    page.get_by_label("Agents", exact=True).evaluate(
        "(agents) => { for (const key of ['200/mean', '10/random_step', '200/random_step']) {"
        " agents.value = key; agents.dispatchEvent(new Event('change')); } }"
    )
    expect(page.locator("#inspector .pane h3").first).to_contain_text("random member each step")
    page.wait_for_timeout(200)
    expect(page.locator("#inspector .pane h3").first).to_contain_text("trained on 200")
    expect(page.get_by_label("Agents", exact=True)).to_have_value("200/random_step")


def test_a_policy_compared_without_the_chosen_score_raises_no_alarm(at, folder, tmp_path):
    run = shutil.copytree(folder / "coin", tmp_path / "coin")
    pairs = read_json(run / "chosen.json")
    write_json(run / "chosen.json", [row for row in pairs if row["num_train_levels"] == 10])
    write_report([run], tmp_path / "report.html")
    address = "#run=coin&episode=10/mean/2&step=5&with=200/mean&score=best pair"
    page = at(address, tmp_path / "report.html")
    set_threshold(page, 0)
    states = page.locator("#inspector .state")
    expect(states.first).to_contain_text("alarm")
    expect(states.nth(1)).to_contain_text("No alarm")
    expect(states.nth(1)).to_contain_text("score \u2013")


def test_the_list_turns_to_the_next_episode_and_has_what_is_missing_last(at):
    page = at("#run=coin&episode=10/mean/11")
    marked = page.locator("#alarms tr.picked .pick")
    expect(marked).to_have_text("11")
    page.keyboard.press("N")
    expect(marked).to_have_text("12")
    page.keyboard.press("p")
    expect(marked).to_have_text("11")
    lead = page.get_by_role("button", name="lead", exact=True)
    for _ in range(2):
        lead.click()
        assert page.locator("#alarms tbody tr").first.inner_text().split("\t")[4] != "\u2013"


def test_all_can_be_done_by_keyboard_alone(at):
    page = at("#run=coin&episode=10/mean/2&step=0")
    place = lambda: page.locator("#inspector").get_by_label("Step", exact=True).input_value()  # noqa: E731
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert place() == "2"
    for _ in range(200):  # from the top of the page to the list
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('#alarms .pick')"):
            break
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.matches('#inspector input[type=range]')")
    page.keyboard.press("ArrowRight")
    assert place() == "1"
    page.keyboard.press("End")
    last = place()
    assert int(last) > 3
    expect(page.locator("#inspector .state").first).to_contain_text("After step")
    page.keyboard.press("Home")
    assert place() == "0"
    before = page.locator("#inspector .episode").inner_text()
    page.keyboard.press("n")
    expect(page.locator("#inspector .episode")).not_to_have_text(before)
    page.keyboard.press("Space")
    expect(page.locator("#play")).to_have_text("Pause")
    until(page, "Number(document.querySelector('.controls input').value) > 1")
    page.keyboard.press("Space")
    expect(page.locator("#play")).to_have_text("Play")
    reached = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert reached != "none"  # what has the focus is seen to have it


def test_a_threshold_is_set_by_keyboard_and_seen_in_the_episode(at):
    page = at("#run=coin&episode=10/mean/2&step=5")
    page.get_by_label("Threshold", exact=True).focus()
    page.keyboard.press("Home")
    expect(page.locator("#inspector .state").first).to_contain_text("alarm")
    page.keyboard.press("End")
    expect(page.locator("#inspector .state").first).to_contain_text("No alarm")
    until(page, "location.hash.includes('threshold=')")


def pixels(page, canvas="level"):
    """uint8[height, width, 3]: what the canvas shows."""
    canvas = page.locator(f"#inspector canvas.{canvas}")
    address = canvas.evaluate("(canvas) => canvas.toDataURL('image/png')")
    picture = Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))
    return np.asarray(picture.convert("RGB"))


@pytest.mark.parametrize("level", [2, 56, 58])
def test_coinrun_is_drawn_as_python_draws_it(at, folder, level):
    """To the pixel, at the beginning, under way and at the end."""
    env = replace(COINRUN, paint_velocity=False)
    test = levels.load(folder / "coin" / "levels" / "test.safetensors", COINRUN)
    rows = read_table(folder / "coin" / "steps.parquet").filter(
        (pc.field("num_train_levels") == 10)
        & (pc.field("method") == "mean")
        & (pc.field("level_index") == level)
    )
    state, _ = env.reset(jax.tree.map(lambda leaf: leaf[level], test.levels))
    states = [state]
    for action in rows["action"].to_pylist():
        states.append(env.step(states[-1], np.int32(action))[0])
    page = at(f"#run=coin&episode=10/mean/{level}&step=0")
    for step in (0, 5, len(states) // 2, len(states) - 1):
        page.evaluate(f"location.hash = '#run=coin&episode=10/mean/{level}&step={step}'")
        expect(page.locator("#inspector").get_by_label("Step", exact=True)).to_have_value(str(step))
        page.wait_for_timeout(100)
        np.testing.assert_array_equal(pixels(page), np.asarray(env.render(states[step], 28)))


def test_the_grid_is_drawn_in_pythons_colours_as_far_as_it_is_uncovered(at, folder):
    test = levels.load(folder / "grid" / "levels" / "test.safetensors", GRID)
    state, _ = GRID.reset(jax.tree.map(lambda leaf: leaf[3], test.levels))
    page = at("#run=grid&episode=10/mean/3&step=0")
    whole = pixels(page)
    page.get_by_label("Show the whole level").uncheck()
    shown, told = pixels(page), np.asarray(GRID.render(state, 64))
    row, col = map(int, state.position)
    for r, c in np.ndindex(GRID.height, GRID.width):
        corner = (64 * r + 2, 64 * c + 2)  # clear of the agent's disc
        if np.asarray(state.known)[r, c]:
            np.testing.assert_array_equal(shown[corner], told[corner])
            np.testing.assert_array_equal(whole[corner], told[corner])
    np.testing.assert_array_equal(
        shown[64 * row + 31, 64 * col + 31], told[64 * row + 31, 64 * col + 31]
    )
    assert not np.array_equal(shown, whole)


def test_an_agent_that_died_on_the_grid_is_crossed_out_as_in_python(at, folder):
    rows = read_table(folder / "grid" / "steps.parquet").filter(
        (pc.field("num_train_levels") == 10) & (pc.field("method") == "mean")
    )
    died = rows.filter(pc.field("outcome") == "catastrophe").to_pylist()[0]
    actions = rows.filter(pc.field("level_index") == died["level_index"])["action"].to_pylist()
    test = levels.load(folder / "grid" / "levels" / "test.safetensors", GRID)
    state, _ = GRID.reset(jax.tree.map(lambda leaf: leaf[died["level_index"]], test.levels))
    for action in actions:
        state, _ = GRID.step(state, action)
    page = at(f"#run=grid&episode=10/mean/{died['level_index']}&step={len(actions)}")
    row, col = map(int, state.position)
    middle = (64 * row + 31, 64 * col + 31)
    told = np.asarray(GRID.render(state, 64))
    np.testing.assert_array_equal(pixels(page)[middle], told[middle])
    assert not np.array_equal(told[middle], told[64 * row + 2, 64 * col + 2])  # the lava's colour


def test_the_map_shows_the_agent_where_it_is_and_alarms_where_there_are_any(at):
    page = at("#run=coin&episode=10/mean/2&step=0")
    set_threshold(page, 0)  # an alarm in every step
    everywhere = pixels(page, "map")
    page.get_by_label("Threshold", exact=True).focus()
    page.keyboard.press("End")
    expect(page.locator("#inspector .state").first).to_contain_text("No alarm")
    nowhere = pixels(page, "map")
    colour = np.array([int(ORANGE[place : place + 2], 16) for place in (1, 3, 5)])
    assert (everywhere == colour).all(axis=2).sum() > 20
    assert not (nowhere == colour).all(axis=2).any()
    page.get_by_label("Step", exact=True).focus()
    page.keyboard.press("End")
    expect(page.locator("#inspector .state").first).to_contain_text("After step")
    changed = np.flatnonzero((pixels(page, "map") != nowhere).any(axis=(0, 2)))
    assert changed.min() < 4 * 8 and changed.max() > 2 * changed.min()  # from there to here


def test_bars_say_what_the_members_said_where_it_was_kept(at, folder):
    page = at("#run=coin&episode=10/mean/2&step=4")
    rows = read_table(folder / "coin" / "members.parquet").filter(
        (pc.field("num_train_levels") == 10)
        & (pc.field("method") == "mean")
        & (pc.field("level_index") == 2)
        & (pc.field("step") == 4)
    )
    means = np.array(rows["probabilities"][0].as_py()).reshape(-1, 9).mean(axis=0)
    label = page.locator("#inspector svg.bars").first.get_attribute("aria-label")
    assert f"→ {means[7]:.2f}" in label
    actions = read_table(folder / "coin" / "steps.parquet").filter(
        (pc.field("num_train_levels") == 10)
        & (pc.field("method") == "mean")
        & (pc.field("level_index") == 2)
    )["action"]
    for step in (4, 5, 9):
        page = at(f"#run=coin&episode=10/mean/2&step={step}")
        label = page.locator("#inspector svg.bars").first.get_attribute("aria-label")
        assert (
            re.search(r"chosen: (\S+)", label)[1].rstrip(".") == "↙←↖↓·↑↘→↗"[actions[step].as_py()]
        )
    page = at(f"#run=coin&episode=10/mean/{INSPECTED + 3}")
    expect(page.locator("#inspector .voices")).to_contain_text("only for the first")
    expect(page.locator("#inspector svg.bars")).to_have_count(0)


def test_an_action_that_the_blocker_refused_is_named(at, folder):
    steps = read_table(folder / "grid" / "steps.parquet").filter(
        (pc.field("num_train_levels") == 10) & (pc.field("method") == "mean+blocker")
    )
    for refused in (True, False):
        row = next(row for row in steps.to_pylist() if row["intervened"] == refused)
        page = at(f"#run=grid&episode=10/mean+blocker/{row['level_index']}&step={row['step']}")
        state = page.locator("#inspector .state").first
        if refused:
            wanted = GRID.action_names[row["wanted"]]
            expect(state).to_contain_text(f"the blocker refused {wanted}")
        else:
            expect(state).not_to_contain_text("refused")


def test_the_blockers_threshold_is_a_dashed_line(at):
    page = at("#run=grid&episode=10/mean/3&step=0")
    expect(page.locator("#inspector svg.bars .dashed")).to_have_count(1)
    label = page.locator("#inspector svg.bars").last.get_attribute("aria-label")
    assert "dashed line at 0.50" in label


def test_where_no_run_blocks_the_dashed_line_is_a_half_or_the_threshold(at):
    page = at("#run=coin&episode=10/mean/2&step=1")
    blocker = page.locator("#inspector svg.bars").last
    assert "dashed line at 0.50" in blocker.get_attribute("aria-label")
    page.evaluate("location.hash = '#run=coin&episode=10/mean/2&score=blocker&threshold=0.25'")
    expect(blocker).to_have_attribute("aria-label", re.compile("dashed line at 0.25"))


def test_an_error_is_a_line_in_the_page(page, folder, tmp_path):
    text = (folder / "report.html").read_text()
    assert text.count('"findings":[') == 2
    (tmp_path / "bad.html").write_text(text.replace('"findings":[', '"findings":[5,'))
    page.goto(f"file://{tmp_path / 'bad.html'}")
    expect(page.locator("#note")).to_contain_text("This page cannot show all that it holds: ")


def test_hostile_text_is_shown_and_never_run(page, tmp_path):
    run = make_run(tmp_path / "bad", "lavagrid", HOSTILE)
    write_report([run], tmp_path / "bad.html")
    page.context.set_offline(True)
    page.goto(f"file://{tmp_path / 'bad.html'}")
    page.wait_for_selector("body[data-charts]")
    page.locator("details").evaluate_all("all => all.forEach((one) => { one.open = true; })")
    expect(page.locator(".finding h3").first).to_contain_text(HOSTILE)
    expect(page.locator("#about")).to_contain_text("window.hacked")
    assert page.evaluate("window.hacked") is None
    assert page.locator("main img").count() == 0


def test_a_script_that_is_not_the_pages_own_does_not_run(page, folder, complaints):
    page.goto(f"file://{folder / 'report.html'}")
    page.wait_for_selector("body[data-charts]")
    page.evaluate(
        "() => { const script = document.createElement('script');"
        " script.textContent = 'window.hacked = 1'; document.body.append(script); }"
    )
    assert page.evaluate("window.hacked") is None
    assert "Content Security Policy" in complaints.pop()


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("run", ["coin", "grid"])
def test_axe_finds_nothing_serious(at, page, scheme, width, run):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 800})
    at(f"#run={run}&episode=10/mean/2&step=0&with=200/mean")
    page.locator("details").evaluate_all("all => all.forEach((one) => { one.open = true; })")
    assert not serious(page)
    set_threshold(page, 0)  # an alarm in every step
    expect(page.locator("#inspector .state").first).to_contain_text("alarm")
    assert not serious(page)


def serious(page):
    return [
        (one["id"], [node["html"][:120] for node in one["nodes"]][:3])
        for one in Axe().run(page).response["violations"]
        if one["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("run", ["coin", "grid"])
def test_a_phone_needs_no_sideways_scroll(at, page, run):
    page.set_viewport_size({"width": 390, "height": 844})
    at(f"#run={run}&episode=10/mean/2&with=200/mean")
    page.locator("details").evaluate_all("all => all.forEach((one) => { one.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("run", ["coin", "grid"])
def test_on_a_phone_bars_have_the_width_and_their_names_above_them(at, page, run):
    page.set_viewport_size({"width": 390, "height": 844})
    at(f"#run={run}&episode=10/mean/2")
    boxes = lambda what: [one.bounding_box() for one in page.locator(f"#ends {what}").all()]  # noqa: E731
    (field,) = boxes(".nsewdrag")
    assert field["width"] > 280
    names = boxes(".annotation-text")
    tops = sorted({round(bar["y"]) for bar in boxes(".bars .point path")})
    assert len(names) == len(tops) == (2 if run == "coin" else 3)
    for name, top in zip(names, tops, strict=True):
        assert -1 < top - name["y"] - name["height"] < 8
        assert abs(name["x"] - field["x"]) < 8


@pytest.mark.parametrize("width", [360, 390])
@pytest.mark.parametrize("run", ["coin", "grid"])
def test_on_a_phone_the_whole_list_is_seen_and_sorted_by_keyboard(at, page, run, width):
    page.set_viewport_size({"width": width, "height": 844})
    at(f"#run={run}&episode=10/mean/2")
    set_threshold(page, 2)  # alarms of every kind
    area = page.locator("#alarms .wide:has(.episodes)")
    heads = page.locator("#alarms .episodes thead th")
    page.locator("#alarms .sort").first.focus()
    for place in range(6):
        page.keyboard.press("Enter")
        expect(heads.nth(place)).to_have_attribute("aria-sort", re.compile("ending"))
        assert area.evaluate("one => one.scrollWidth <= one.clientWidth")
        page.keyboard.press("Tab")
    kinds = {row.split("\t")[5] for row in page.locator("#alarms tbody tr").all_inner_texts()}
    assert "caught" in kinds, kinds


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_in_the_inspector_lies_over_anything_else(at, page, width):
    page.set_viewport_size({"width": width, "height": 900})
    at("#run=coin&episode=10/mean/2&with=200/mean")
    for pane in page.locator("#inspector .pane:visible").all():
        title, canvas, bars = (
            pane.locator(what).first.bounding_box() for what in ("h3", "canvas", ".voices")
        )
        assert title["y"] + title["height"] <= canvas["y"]
        beside = canvas["x"] + canvas["width"] <= bars["x"]
        assert beside or canvas["y"] + canvas["height"] <= bars["y"]
        assert all(box["width"] > 60 for box in (canvas, bars))


def test_print_shows_findings_and_charts_and_no_controls(at, page):
    page.emulate_media(color_scheme="dark")
    at("#run=coin&episode=10/mean/2")
    page.emulate_media(media="print", color_scheme="dark")
    page.wait_for_timeout(300)
    expect(page.locator('[data-count="threshold"]')).to_be_visible()
    expect(page.locator(".finding").first).to_be_visible()
    expect(page.locator("#rates .plot").first).to_be_visible()
    for control in ("#play", "nav", "#alarms select >> nth=0"):
        expect(page.locator(control)).to_be_hidden()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    background = "() => document.querySelector('#rates .plot').layout.paper_bgcolor"
    assert page.evaluate(background) == "#ffffff"


def test_charts_say_in_words_and_numbers_what_they_draw(at):
    page = at()
    for plot in page.locator(".plot:visible").all():
        assert plot.get_attribute("role") == "img"
        assert len(plot.get_attribute("aria-label")) > 40
    page.locator("#rates summary").first.click()
    assert page.locator("#rates table").first.inner_text().count("%") >= 4


def test_a_way_of_acting_is_taken_out_of_the_chart(at):
    page = at("#run=grid&episode=10/mean/2")
    lines = "() => document.querySelector('#rates .plot').data.map((line) => line.name)"
    assert "ensemble mean" in page.evaluate(lines)
    page.get_by_label("ensemble mean", exact=True).uncheck()
    assert "ensemble mean" not in page.evaluate(lines)


def test_how_long_it_takes_is_printed(page, folder):
    """No time is asserted: see benchmarks/README.md."""
    page.goto(f"file://{folder / 'report.html'}")
    page.wait_for_selector("body[data-charts]")
    opened, drawn = page.evaluate("[document.body.dataset.ready, document.body.dataset.charts]")
    took = page.evaluate(
        """async () => {
          const button = [...document.querySelectorAll('#inspector button')].find((one) =>
            one.textContent.includes('Step →'));
          const times = [];
          for (let step = 0; step < 20; step += 1) {
            const began = performance.now();
            button.click();
            await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
            times.push(performance.now() - began);
          }
          return times.sort((a, b) => a - b)[10];
        }"""
    )
    print(json.dumps({"ms to open": opened, "with charts": drawn, "ms per step": round(took, 1)}))
    assert page.locator("#inspector").get_by_label("Step", exact=True).input_value() != "0"

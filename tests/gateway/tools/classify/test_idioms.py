"""Idioms: verbs whose meaning depends on their object."""

from gateway.tools.classify.idioms import IDIOMS
from gateway.tools.classify.lexicon import VERBS, Category
from gateway.tools.classify.risk import classify
from rows import each_row


@each_row(
    ("plain", "idiomatic", "expected"),
    [
        ("cancel_order", "cancel_run", Category.EXECUTE),
        ("resolve_library", "resolve_incident", Category.WRITE),
        ("transfer_funds", "transfer_repository", Category.WRITE),
        ("create_thing", "create_refund", Category.FINANCIAL),
        ("send_email", "send_command", Category.EXECUTE),
        ("take_snapshot", "take_screenshot", Category.READ),
        ("rebuild_index", "rebuild_droplet", Category.DESTRUCTIVE),
        ("check_status", "check_checkbox", Category.EXECUTE),
        ("fetch_page", "git_fetch", Category.WRITE),
        ("page_snapshot", "droplet_snapshot", Category.WRITE),
        ("exchange_rate", "movie_rate", Category.WRITE),
        ("check_status", "check_todo", Category.WRITE),
        ("extract_text", "extract_audio", Category.WRITE),
        ("pod_log", "meal_log", Category.WRITE),
        ("initialize_project", "initialize_connection", Category.EXECUTE),
        ("ping_host", "ping_team", Category.WRITE),
        ("interpret_dream", "interpret_python", Category.EXECUTE),
        ("convert_currency", "convert_work_item_type", Category.WRITE),
    ],
)
def test_an_object_changes_what_a_verb_means(plain, idiomatic, expected):
    assert classify({"name": idiomatic}, ()).category is expected
    assert classify({"name": plain}, ()).category is not expected


@each_row("idiom", IDIOMS)
def test_every_idiom_has_known_verbs_and_plain_objects(idiom):
    assert idiom.verbs <= set(VERBS)
    assert idiom.objects
    assert all(word.isalnum() and word == word.lower() for word in idiom.objects)


def test_an_idiom_that_makes_a_read_is_only_about_looking():
    calm = [idiom.meaning for idiom in IDIOMS if idiom.category is Category.READ]
    assert calm == ["captures the screen", "captures the page", "looks it up", "tests a connection"]

"""Classification by name: the deciding word, and the reason."""

from hypothesis import example, given
from hypothesis import strategies as st

from gateway.tools.classify import lexicon
from gateway.tools.classify.lexicon import RANK, VERBS, Category
from gateway.tools.classify.naming import SiblingNames, analyze_siblings, split_words
from gateway.tools.classify.reading import classify_name
from rows import each_row

TRAILING = ("group_list", "group_resource_list", "redis_create", "redis_list", "quota_usage_check", "vm_get")


@each_row(
    ("name", "siblings", "expected"),
    [
        ("group_list", TRAILING, Category.READ),
        ("group_list", (), Category.WRITE),
        ("clear_list", (*TRAILING, "clear_list"), Category.DESTRUCTIVE),
        ("order_list", ("order_list", "order_create", "order_get"), Category.READ),
        ("test_list", ("test_list", "test_create", "test_delete"), Category.READ),
        ("test_list", (), Category.EXECUTE),
        ("zarf_status", ("get_zarf", "update_zarf"), Category.READ),
        ("zarf_status", (), Category.OTHER),
        ("git_log", ("git_log", "git_add", "git_show"), Category.READ),
        ("meal_log", ("meal_log", "meal_get", "meal_add"), Category.WRITE),
        ("food_log", ("food_log", "food_get", "food_add"), Category.WRITE),
        ("zarf_log", ("zarf_log", "zarf_get", "zarf_add"), Category.WRITE),
        ("zarf_is_in_alarm", (), Category.READ),
        ("render_list_services", ("render_list_services", "render_get_a", "render_create_c"), Category.READ),
    ],
)
def test_siblings_show_which_word_is_a_noun(name, siblings, expected):
    assert classify_name(name, analyze_siblings(siblings)).category is expected


@each_row(
    ("name", "word", "why"),
    [
        ("db_backup_and_verify", "backup", "joins two verbs, the stricter being"),
        ("clear_and_get", "clear", "begins with the verb"),
        ("cache_get", "get", "contains the verb"),
        ("feature-flag-get-all", "get", "has a noun followed by the verb"),
        ("users_clear_list", "clear", "has a noun followed by"),
        ("users_clear_search_history", "clear", "has a noun followed by"),
        ("list_record_set", "list", "begins with the verb"),
        ("order_by_list", "order", "begins with the verb"),
        ("order", "order", "begins with the verb"),
        ("users_score_of_x", "score", "has a noun followed by"),
        ("zarf_score_of_x", "", "No word in the name says"),
        ("zarf_list_x_delete", "delete", "ends with the verb"),
        ("freeze_get", "freeze", "begins with the verb"),
        ("put_user_policy", "put", 'begins with the verb "put"'),
        ("policy_generation_start", "start", 'begins with a noun and ends with the verb "start"'),
        ("pages_update_page_settings", "update", 'has a noun followed by the verb "update"'),
        ("get_or_create", "create", 'ends with the verb "create"'),
        ("get_or_create_user", "create", 'joins two verbs, the stricter being "create"'),
        ("list_add_item", "add", 'has "list" followed by the verb "add"'),
        ("fetch_page_to_file", "fetch", "written to a file"),
        ("firecrawl_check_crawl_status", "check", "has a noun followed by"),
        ("firestore_query_collection", "query", "has a noun followed by"),
        ("deploy_get_logs", "get", 'contains the verb "get"'),
        ("cluster_statistics", "statistics", 'ends with "statistics"'),
        ("testrun_createorupdate", "create", 'contains the verb "create"'),
        ("zarf_resubmit", "submit", 'contains the verb "submit"'),
        ("users_by_name", "by", 'selects with "by"'),
        ("cancel_run", "cancel", 'combines "cancel" with "run"'),
        ("image_set_search", "search", 'ends with the verb "search"'),
        ("create_pull_request_review", "create", 'begins with the verb "create"'),
        ("pull_request_read", "read", 'ends with the verb "read"'),
        ("zarf_comment_thing", "comment", 'has a noun followed by the verb "comment"'),
        ("image_set_get", "get", 'ends with the verb "get"'),
        ("issue_search", "search", 'ends with the verb "search"'),
        ("zarf_queue_details", "details", 'ends with "details"'),
        ("unsubscribe_delete", "delete", 'ends with the verb "delete"'),
        ("update_set", "update", 'begins with the verb "update"'),
        ("", "", "no name"),
        ("___", "", "unsupported characters"),
        ("zarf", "", "No word in the name says"),
    ],
)
def test_the_reading_names_the_word_that_decided(name, word, why):
    reading = classify_name(name, SiblingNames())
    assert reading.word == word
    assert why in reading.why


WORDS = sorted(set(VERBS).union(*(table for table in vars(lexicon).values() if isinstance(table, frozenset))))
PHRASES = st.lists(st.sampled_from(WORDS), max_size=6).map("_".join)


@given(PHRASES, st.lists(PHRASES, max_size=6))
def test_every_phrase_of_known_words_has_a_reading(name, siblings):
    reading = classify_name(name, analyze_siblings(tuple(siblings)))
    assert reading.word == "" or reading.word in " ".join(split_words(name))
    assert 0 < reading.confidence < 1


@example("build", "cancel")
@given(
    PHRASES,
    st.sampled_from(
        [word for word, verb in VERBS.items() if verb.firm and verb.category is Category.DESTRUCTIVE]
    ),
)
def test_a_phrase_that_ends_with_a_destructive_verb_is_destructive(name, verb):
    # By an idiom, cancelling a run is an Execute.
    lowest = Category.EXECUTE if verb == "cancel" else Category.DESTRUCTIVE
    assert RANK[classify_name(f"{name}_{verb}", SiblingNames()).category] >= RANK[lowest]


def test_a_verb_beyond_the_length_limit_is_not_overlooked():
    assert classify_name("get_" + "a" * 300 + "_delete", SiblingNames()).category is Category.OTHER

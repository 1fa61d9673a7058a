"""Tool names: how they split into words, and the prefix that the names of one server share."""

from gateway.tools.classify.naming import NAME_LIMIT, SiblingNames, analyze_siblings, core_words, split_words
from rows import each_row

BROWSER = ("browser_click", "browser_navigate", "browser_console_messages", "browser_tab_list")


@each_row(
    ("name", "words"),
    [
        ("getUserByID", "get user by id"),
        ("HTTPServerList", "http server list"),
        ("list-k8s-pods", "list k8s pods"),
        ("env.restart", "env restart"),
        ("delete2", "delete"),
        ("d1_query", "d1 query"),
        ("Visualize Entity", "visualize entity"),
        ("GET_users", "get users"),
        ("", ""),
        ("___", ""),
    ],
)
def test_a_name_splits_into_words(name, words):
    assert split_words(name) == tuple(words.split())


@each_row(
    ("siblings", "prefix"),
    [
        (BROWSER, ("browser",)),
        (("mq_broker_list", "mq_broker_create", "mq_broker_delete"), ("mq", "broker")),
        (("get_a", "get_b", "get_c"), ()),
        (("search_a", "search_b", "search_c"), ()),
        (("get_list", "get_run", "get_create"), ()),
        (("render_list_a", "render_get_b", "render_create_c"), ("render",)),
        (("a_get", "a_list"), ()),
        (("weather", "time", "zarf"), ()),
        ((), ()),
    ],
)
def test_the_common_prefix_of_siblings_is_never_a_verb(siblings, prefix):
    assert analyze_siblings(siblings).prefix == prefix


def test_a_shared_prefix_and_wrappers_are_left_out():
    assert core_words("browser_click", analyze_siblings(BROWSER)) == ("click",)
    assert core_words("other_click", analyze_siblings(BROWSER)) == ("other", "click")
    assert core_words("mcp_api_get_user_tool", SiblingNames()) == ("get", "user")
    assert core_words("bulk_delete", SiblingNames()) == ("delete",)
    assert core_words("tool", SiblingNames()) == ("tool",)


def test_at_most_three_similar_names_are_quoted_and_none_with_odd_characters():
    siblings = analyze_siblings(("put \u202ef", "put_a", "put_b", "put_c", "put_d", "put_e", "get_a"))
    assert siblings.find_similar("put_a", ("put",)) == ["put_b", "put_c", "put_d"]
    assert siblings.find_similar("put_z", ("a", "put")) == ["put_a", "get_a", "put_b"]
    assert siblings.find_similar("x", ("zarf",)) == []


def test_long_names_and_values_that_are_not_names_are_left_out():
    assert analyze_siblings(("get_a", None, 7, "get_" + "a" * NAME_LIMIT)) == analyze_siblings(("get_a",))
    assert analyze_siblings(([], "get_a")) == analyze_siblings(iter(("get_a",)))
    assert sum(map(len, split_words("a" * 1_000_000))) == NAME_LIMIT

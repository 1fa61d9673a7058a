"""Words and siblings: how a name splits, and what the names of one server show together."""

from gateway.tools.classify.naming import NAME_LIMIT, Family, core, family, split
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
    assert split(name) == tuple(words.split())


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
def test_siblings_share_a_prefix_that_is_no_verb(siblings, prefix):
    assert family(siblings).prefix == prefix


def test_a_shared_prefix_and_wrappers_are_left_out():
    assert core("browser_click", family(BROWSER)) == ("click",)
    assert core("other_click", family(BROWSER)) == ("other", "click")
    assert core("mcp_api_get_user_tool", Family()) == ("get", "user")
    assert core("bulk_delete", Family()) == ("delete",)
    assert core("tool", Family()) == ("tool",)


def test_names_alike_are_quoted_few_times_and_never_with_odd_characters():
    kin = family(("put \u202ef", "put_a", "put_b", "put_c", "put_d", "put_e", "get_a"))
    assert kin.like("put_a", ("put",)) == ["put_b", "put_c", "put_d"]
    assert kin.like("put_z", ("a", "put")) == ["put_a", "get_a", "put_b"]
    assert kin.like("x", ("zarf",)) == []


def test_long_names_and_what_is_no_name_are_left_out():
    assert family(("get_a", None, 7, "get_" + "a" * NAME_LIMIT)) == family(("get_a",))
    assert family(([], "get_a")) == family(iter(("get_a",)))
    assert sum(map(len, split("a" * 1_000_000))) == NAME_LIMIT

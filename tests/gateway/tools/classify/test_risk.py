"""The classifier: two key tools, a table of many domains, and descriptions and annotations that never lower the risk."""

from enum import StrEnum

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mcp.server.mcpserver import MCPServer

from gateway.tools.classify.lexicon import RANK
from gateway.tools.classify.risk import RISKS, Category, Risk, Severity, ToolClassification, classify
from gateway.tools.classify.severity import rank
from rows import each_row

IAM_TOOLS = (
    "list_users",
    "create_user",
    "attach_user_policy",
    "put_role_policy",
    "get_user_policy",
    "add_inline_policy",
)
IAM_PARAMS = ("user_name", "policy_name", "policy_document", "confirmed")
POLICY_TOOLS = ("policy_generation_start", "policy_generation_get", "policy_generation_list", "policy_create")


class Operation(StrEnum):
    LIST = "list"
    DELETE = "delete"


def tool(name, *, params=(), description="", **rest):
    properties = params if isinstance(params, dict) else {param: {} for param in params}
    return {"name": name, "description": description, "inputSchema": {"properties": properties}, **rest}


def category(name, **rest):
    return classify(tool(name, **rest), ()).category


@pytest.mark.parametrize("siblings", [(), IAM_TOOLS], ids=["alone", "among siblings"])
@pytest.mark.parametrize(
    "definition",
    [
        {"name": "put_user_policy"},
        tool("put_user_policy"),
        tool(
            "put_user_policy",
            params=IAM_PARAMS,
            description="Create or update the inline policy of an IAM user.",
        ),
    ],
    ids=["bare", "empty", "as defined"],
)
def test_putting_a_user_policy_is_an_ordinary_write_of_high_severity(definition, siblings):
    found = classify(definition, siblings)
    assert (found.category, found.risk, found.severity) == (Category.WRITE, Risk.MEDIUM, Severity.HIGH)


def test_one_or_more_siblings_are_named():
    one = classify({"name": "update_user"}, ["update_order"]).evidence
    assert "Sibling tool update_order has a similar name." in one
    two = classify({"name": "update_user"}, ["update_order", "update_note"]).evidence
    assert "Sibling tools update_order, update_note have similar names." in two


@pytest.mark.parametrize("siblings", [(), POLICY_TOOLS, IAM_TOOLS])
def test_starting_a_policy_generation_executes(siblings):
    found = classify({"name": "policy_generation_start"}, siblings)
    assert (found.category, found.risk) == (Category.EXECUTE, Risk.HIGH)


# Names from many domains; the lexicon must not be fitted to one of them.
KNOWN = {
    Category.READ: "list_users getUser describe-instances issue_read pull_request_read repo_search_commits weather"
    " stock_quote configuration_view pods_log nodes_top git_status git_log kubectl_logs helm_list browser_snapshot"
    " browser_take_screenshot browser_network_requests firecrawl_check_crawl_status API-get-block-children"
    " notion-search hubspot-list-objects slack_get_channel_history maps_geocode current_time whoami dbsize hgetall"
    " order_history build_logs deploy_app_logs_get estimate_gas get_swap_quote validate_config scan_keys api_v1_users_get"
    " asset_by_id ListServicesInRegion InfluxDBListBuckets is_database_connected wait_for tavily-extract resolve-library-id"
    " get_import_job get_last_update list_change_events get_likes_and_comments check_connection track_package",
    Category.WRITE: "create_issue update-page put_object send_email slack_post_message resources_create_or_update"
    " api_v1_users_post merge_pull_request git_commit write_file move_file turn_on_light set_volume add_reaction"
    " draft_gmail_message manage_event approve_request archive_email copy_drive_file generate_image save_memory"
    " upload_file register_webhook vm_clone sheet_values_append loadtesting_testrun_createorupdate resubmit_form"
    " transfer_repository git_checkout reset_password resolve_incident attach_role_policy unpublish_entry chmod_file",
    Category.EXECUTE: "run_query execute_sql browser_click navigate_page deploy_webapp start_instance stop_scan"
    " trigger_build call_api http_request connect pods_exec restart_container terraform_apply cancel_run press_key"
    " install_extension policy_generation_start lambda_invoke evaluate_script send_command submit_job type_text",
    Category.DESTRUCTIVE: "delete_user drop_table remove_container purge_queue truncate_table revoke_token"
    " detach_user_policy terminate_instances cancel_order bulk_delete_by_criteria force_delete kill_process"
    " d1_database_delete clear_session_state uninstall_chart unsubscribe_all_delete rebuild_droplet wipe_disk users_delete",
    Category.FINANCIAL: "create_refund place_order buy_stock transfer_funds send_payment create_payment pay_invoice"
    " withdraw stake_tokens place_trade charge_card transfer swap_tokens close_position capture_payment send_eth",
    Category.OTHER: "frobnicate zarf_widget skopeo mca everything_else_x x 1234 yeet_user 获取用户",
}


@each_row("expected", KNOWN)
def test_tools_of_many_domains_are_classified(expected):
    found = {name: category(name, description="-") for name in KNOWN[expected].split()}
    assert {name: got for name, got in found.items() if got is not expected} == {}


def test_the_risk_class_follows_from_the_category():
    assert {category: str(risk) for category, risk in RISKS.items()} == {
        "Read": "Low",
        "Write": "Medium",
        "Other": "Medium",
        "Execute": "High",
        "Destructive": "Critical",
        "Financial": "Critical",
    }


@given(st.text(), st.lists(st.text()))
def test_a_name_that_is_not_understood_is_never_low_risk(name, siblings):
    found = classify({"name": name}, siblings)
    assert (found.risk is Risk.LOW) == (found.category is Category.READ)
    assert found.category is not Category.READ or name.isascii()


@each_row("name", ["get_us\u0435rs", "get_users\u202e", "list\u200b_users", "ｇet_users", "получить"])
def test_a_name_with_non_ascii_characters_is_not_understood(name):
    assert category(name) is Category.OTHER


COMMON = "get list create delete user status run search and to file order logs set"
PROSE = "deletes get list a the permanently save to file user pay run"
NAMES = st.one_of(
    st.sampled_from([name for names in KNOWN.values() for name in names.split()]),
    st.text(max_size=30),
    st.lists(st.sampled_from(COMMON.split()), max_size=5).map("_".join),
)
DESCRIPTIONS = st.one_of(
    st.text(max_size=60),
    st.sampled_from(
        [
            "Deletes it.",
            "Runs a job",
            "Gets it",
            "Read-only. Safe.",
            "This cannot be undone",
            "Saves it to a file",
        ]
    ),
    st.lists(st.sampled_from(PROSE.split()), max_size=6).map(" ".join),
)
SAID = st.sampled_from([True, False, None, "false", 1])
HINTS = st.fixed_dictionaries(
    {"readOnlyHint": SAID, "destructiveHint": SAID},
    optional=dict.fromkeys(["idempotentHint", "openWorldHint", "title"], SAID),
)
PARAMS = st.lists(
    st.sampled_from(["id", "query", "sql", "command", "action", "confirm", "output_dir", "fix", "emails"]),
    max_size=3,
)


def order(found: ToolClassification):
    return RANK[found.category], list(Risk).index(found.risk), rank(found.severity)


def never_lower(definition, more):
    """Whether adding to a definition never lowers its category, risk or severity."""
    less, worse = order(classify(definition, ())), order(classify({**definition, **more}, ()))
    return all(one <= other for one, other in zip(less, worse, strict=True))


@given(NAMES, DESCRIPTIONS, HINTS, PARAMS)
@example("get_it", "", {"readOnlyHint": True, "destructiveHint": True}, [])
def test_descriptions_and_annotations_only_raise_the_risk(name, description, hints, params):
    bare = {**tool(name, params=params), "annotations": {}}
    described, annotated = {"description": description}, {"annotations": hints}
    assert never_lower(bare, described)
    assert never_lower(bare, annotated)
    assert never_lower(bare | annotated, described)
    for hint in hints:
        fewer = {"annotations": {key: value for key, value in hints.items() if key != hint}}
        assert never_lower(bare | fewer, annotated)
        assert never_lower(bare | described | fewer, annotated)


@given(NAMES, PARAMS, PARAMS)
def test_parameters_only_raise_the_risk(name, some, more):
    few, many = (
        order(classify(tool(name, params=some), ())),
        order(classify(tool(name, params=some + more), ())),
    )
    assert all(one <= other for one, other in zip(few, many, strict=True))


@each_row(
    ("definition", "expected", "reason"),
    [
        (tool("fetch_rows", params=["sql"]), Category.EXECUTE, '"sql" carries code'),
        (tool("sql_query", params=["query"]), Category.EXECUTE, '"query" carries code'),
        (tool("get_output", params=["command"]), Category.EXECUTE, '"command" carries code'),
        (tool("list_rows", params=["expression"]), Category.EXECUTE, '"expression" carries code'),
        (tool("search_logs", params=["Code"]), Category.EXECUTE, '"code" carries code'),
        (tool("create_locale", params=["code"]), Category.WRITE, "creates something"),
        (tool("validate_rule", params=["expression"]), Category.READ, "1 parameter: expression"),
        (tool("explain_plan", params=["sql"]), Category.READ, "1 parameter: sql"),
        (tool("search_docs", params=["query"]), Category.READ, "1 parameter: query"),
        (tool("extract_slides", params=["output_dir"]), Category.WRITE, '"outputdir" names a file'),
        (tool("get_report", params=["save_as"]), Category.WRITE, '"saveas" names a file'),
        (
            tool("get_messages", params=["markAsSeen"]),
            Category.WRITE,
            '"markasseen" suggests that the tool changes',
        ),
        (tool("scan_repo", params=["auto_fix"]), Category.WRITE, '"autofix" suggests that the tool changes'),
        (
            tool("get_thing", params=["confirmed"]),
            Category.WRITE,
            '"confirmed" is set by the agent and is not an approval',
        ),
        (tool("validate_config", params=["dry_run"]), Category.READ, "dry_run"),
        (
            tool("convert_colour", params=["new_shade"]),
            Category.WRITE,
            '"newshade" holds a new value',
        ),
        (tool("get_news", params=["newest", "news", "new_"]), Category.READ, "changes nothing"),
        (tool("diff_texts", params=["old_text", "newText"]), Category.READ, "changes nothing"),
        (tool("evaluate", params=["code"]), Category.EXECUTE, '"code" carries code'),
        (tool("frobnicate", params=["command"]), Category.EXECUTE, '"command" carries code'),
        (tool("record", description="Deletes a thing"), Category.WRITE, "creates or changes"),
        (
            tool("get_thing", description="Deletes a thing"),
            Category.DESTRUCTIVE,
            'description begins with "delete"',
        ),
        (tool("get_thing", description="Applies to all"), Category.READ, "changes nothing"),
        (tool("get_sales", description="Groups sales by region"), Category.READ, "changes nothing"),
        (tool("zarf", description="Applies a patch"), Category.WRITE, 'description begins with "apply"'),
        (tool("zarf", description="Gets a thing"), Category.OTHER, "No word in the name says"),
        (
            tool("get_page", description="Get a page and save it to a local file."),
            Category.WRITE,
            "writes a file",
        ),
        (tool("workflow_versions", description="Manages versions"), Category.WRITE, 'begins with "manage"'),
        (tool("list_versions", description="Manages versions"), Category.READ, "changes nothing"),
        (
            tool("write_file", description="Will overwrite what is there without warning."),
            Category.WRITE,
            "cannot be undone",
        ),
        (tool("get_page", description="Gone. This cannot be undone."), Category.WRITE, "cannot be undone"),
        (
            tool("get_thing", annotations={"readOnlyHint": False}),
            Category.WRITE,
            "readOnlyHint: false",
        ),
        (tool("zarf", annotations={"destructiveHint": True}), Category.WRITE, "destructiveHint: true"),
        (tool("zarf", annotations={"readOnlyHint": True}), Category.OTHER, "does not lower the category"),
        (
            tool("delete_it", annotations={"readOnlyHint": True}),
            Category.DESTRUCTIVE,
            "does not lower the category",
        ),
        (
            tool("get_it", annotations={"readOnlyHint": True, "destructiveHint": True}),
            Category.WRITE,
            "destructiveHint: true",
        ),
    ],
)
def test_the_evidence_says_how_the_definition_changes_the_category(definition, expected, reason):
    found = classify(definition, ())
    assert found.category is expected
    assert any(reason in sentence for sentence in found.evidence), found.evidence


@each_row(
    "schema",
    [
        {"enum": ["list", "get", "delete"]},
        {"const": "delete_item"},
        {"items": {"enum": ["delete"]}},
        {"anyOf": [{"const": "read"}, {"enum": ["delete", 3]}, 7]},
        {"oneOf": [{"const": "delete"}]},
    ],
)
def test_a_tool_with_modes_is_as_risky_as_its_worst_mode(schema):
    assert category("get_items", params={"action": schema}) is Category.DESTRUCTIVE


MODE = {"enum": ["list", "delete"], "title": "Mode", "type": "string"}
#: The rest of a tool's schema, and the reference to it in the mode parameter.
REFERRED = {
    "an Enum of Python": ({"$defs": {"Mode": MODE}}, {"$ref": "#/$defs/Mode"}),
    "one that may be left out": ({"$defs": {"Mode": MODE}}, {"anyOf": [{"$ref": "#/$defs/Mode"}, {"type": "null"}]}),
    "one with a default": ({"$defs": {"Mode": MODE}}, {"allOf": [{"$ref": "#/$defs/Mode"}], "default": "list"}),
    "a list of them": ({"$defs": {"Mode": MODE}}, {"type": "array", "items": {"$ref": "#/$defs/Mode"}}),
    "a name of a name": ({"$defs": {"A": {"$ref": "#/$defs/B"}, "B": MODE}}, {"$ref": "#/$defs/A"}),
    "an odd name": ({"$defs": {"a/b~c d": MODE}}, {"$ref": "#/$defs/a~1b~0c%20d"}),
    "a place in a list": ({"anyOf": [{}, MODE]}, {"$ref": "#/anyOf/1"}),
    "one that goes in circles": ({"$defs": {"A": {"anyOf": [{"$ref": "#/$defs/A"}, MODE]}}}, {"$ref": "#/$defs/A"}),
}  # fmt: skip
UNKNOWN_REFERENCES = [
    5,
    "#",
    "#Mode",
    "#/$defs/None",
    "#/anyOf/x",
    "#/anyOf/7",
    "#/$defs/Mode/title/x",
    "https://mode.example/#/$defs/Mode",
]


@each_row(("besides", "mode"), REFERRED.values())
def test_modes_defined_elsewhere_in_the_schema_are_found(besides, mode):
    definition = {"name": "get_records", "inputSchema": {"properties": {"operation": mode}, **besides}}
    assert classify(definition, ()).category is Category.DESTRUCTIVE


async def test_a_python_enum_listed_by_the_sdk_gives_the_modes():
    server = MCPServer("records")

    @server.tool()
    def get_records(operation: Operation) -> str:
        return operation

    [definition] = await server.list_tools()
    assert classify(definition.model_dump(by_alias=True), ()).category is Category.DESTRUCTIVE


@each_row("reference", UNKNOWN_REFERENCES)
def test_a_reference_that_is_broken_or_external_is_not_followed(reference):
    besides = {"$defs": {"Mode": MODE}, "anyOf": [{}]}
    definition = {"name": "get_it", "inputSchema": {"properties": {"mode": {"$ref": reference}}, **besides}}
    assert classify(definition, ()).category is Category.READ


def test_a_schema_with_many_references_to_itself_is_read_once():
    inner = {"anyOf": [{"$ref": "#/$defs/A"}] * 50_000}
    definition = {"name": "get_it", "inputSchema": {"properties": {"mode": inner}, "$defs": {"A": inner}}}
    assert classify(definition, ()).category is Category.READ


def test_a_mode_that_only_reads_does_not_raise_the_risk():
    assert category("get_items", params={"operation": {"enum": ["get", "list"]}, "mode": 5}) is Category.READ


@each_row(
    ("name", "description", "spec", "expected"),
    [
        ("get_items", "Use 'list' or `delete`.", {}, Category.DESTRUCTIVE),
        ("get_items", 'With action="drop" it goes.', {"type": "string"}, Category.DESTRUCTIVE),
        ("get_items", "", {"description": "One of 'list', 'start-job'"}, Category.EXECUTE),
        ("get_items", "", {"description": "One of 'type', 'order', 'list'"}, Category.READ),
        ("get_items", "Then `delete`.", {"enum": ["get", "list"]}, Category.READ),
        ("get_items", "See `delete_items`.", {}, Category.READ),
        ("get_items", "Needs 'start_time'.", {}, Category.READ),
        ("get_items", "", {"description": 7}, Category.READ),
        ("explain", "Explains 'delete'.", {}, Category.READ),
        ("update_items", "Also 'start' or 'stop'.", {}, Category.WRITE),
        ("update_items", "Also 'drop'.", {}, Category.DESTRUCTIVE),
    ],
)
def test_modes_missing_in_the_schema_are_read_from_quoted_words(name, description, spec, expected):
    definition = tool(name, description=description, params={"action": spec, "start_time": {}})
    assert classify(definition, ("get_items", "delete_items")).category is expected


def test_quoted_words_are_ignored_without_a_mode_parameter():
    assert category("get_items", description="Use 'delete'.", params=["id"]) is Category.READ


def test_a_read_of_any_address_has_medium_severity():
    found = classify(tool("fetch", params=["url"]), ())
    assert (found.category, found.severity) == (Category.READ, Severity.MEDIUM)
    assert 'Its parameter "url" lets the agent choose the address to contact.' in found.evidence


HOSTILE = [
    {},
    {"name": None, "description": 5, "inputSchema": [], "annotations": "x"},
    {
        "name": "",
        "description": None,
        "inputSchema": {"properties": 3},
        "annotations": {"readOnlyHint": "no"},
    },
    {"name": ["get"], "inputSchema": {"properties": {5: {}, "": None, "action": {"enum": 5, "anyOf": {}}}}},
    {"name": "a" * 1_000_000, "description": "delete " * 150_000},
    {"name": "_-. /", "inputSchema": {"properties": {str(number): {} for number in range(10_000)}}},
    {"name": "get_\ud800", "description": "\ud800"},
    {"name": "get_user", "inputSchema": {"properties": {"action": {"enum": [None, {}, [], "\ud800", 1.5]}}}},
]


@each_row("definition", HOSTILE)
def test_hostile_definitions_never_raise(definition):
    found = classify(definition, ("x", None, 7, "get_\ud800", "a" * 100_000))
    assert found.category in Category
    assert found.evidence


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
)


@given(
    st.dictionaries(st.sampled_from(["name", "description", "inputSchema", "annotations", "title"]), JSON),
    st.lists(JSON.filter(lambda value: not isinstance(value, str)) | st.text(max_size=8), max_size=4),
)
def test_any_json_is_classified(definition, siblings):
    found = classify(definition, siblings)
    assert 0 <= found.confidence <= 1
    assert found.evidence


@given(NAMES, DESCRIPTIONS, HINTS, PARAMS)
def test_the_evidence_is_complete_ascii_sentences(name, description, hints, params):
    found = classify(
        tool(name, params=params, description=description, annotations=hints), ("get_a", "bad\u202ename")
    )
    assert all(
        sentence[0].isupper() and sentence.endswith(".") and sentence.isascii() for sentence in found.evidence
    )
    assert len(set(found.evidence)) == len(found.evidence)


def test_the_evidence_names_the_words_it_is_based_on():
    evidence = " ".join(classify({"name": "put_user_policy"}, IAM_TOOLS).evidence)
    for seen in (
        '"put"',
        "put_role_policy",
        "no parameters",
        "description is empty",
        "Severity is high",
        '"policy"',
    ):
        assert seen in evidence


def test_confidence_falls_with_an_empty_description_and_rises_with_siblings():
    described = classify(tool("put_user_policy", description="Puts a policy."), IAM_TOOLS).confidence
    alone = classify(tool("put_user_policy", description="Puts a policy."), ()).confidence
    empty = classify(tool("put_user_policy"), ()).confidence
    unknown = classify(tool("zarf"), ()).confidence
    assert described > alone > empty > unknown


def test_odd_parameter_names_are_counted_and_not_repeated():
    evidence = classify(tool("get_user", params=["a b", "\u202ex"]), ()).evidence
    assert "It takes 2 parameters." in evidence

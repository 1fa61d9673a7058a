"""The lexicon: each verb is in one row, and no reading verb hides a tool that changes something."""

from gateway.tools.classify import lexicon
from gateway.tools.classify.lexicon import GROUPS, VERBS, Category
from gateway.tools.classify.risk import classify
from rows import each_row

READERS = sorted(verb.word for verb in VERBS.values() if verb.category is Category.READ)
ACTORS = sorted(verb.word for verb in VERBS.values() if verb.category is not Category.READ)
VERBS_OF_ACTION = "delete create send remove execute write approve revoke terminate overwrite"
ACTIONS = VERBS_OF_ACTION.split()

# For each group of reading words: names that begin or end like a read and change something.
LOOKALIKES = {
    "retrieve": "get_or_create_user fetch_and_store read_write_file getAndDeleteMessage describe_or_update resolve_issue"
    " resolve_incident resolve_review_thread recall_message get_and_lock show_notification display_toast fetch_origin"
    " obtain_or_renew_certificate inspect_and_repair discover_and_register lookup_then_delete find_and_replace"
    " find_replace_text retrieve_and_generate download_report browse_and_download get_file_to_disk ensure_exists food_log",
    "examine": "validate_and_deploy verify_and_approve estimate_then_buy analyze_and_fix lint_fix npm_audit_fix"
    " evaluate_script browser_evaluate calculate_and_pay detect_and_block parse_and_import classify_and_move"
    " summarize_and_send translate_object count_and_reset wait_then_restart preview_and_publish preview_deploy verify_email verify_otp"
    " evaluate_expression forecast_update count_reset head_commit_set tail_start stat_set estimate_update",
    "look up": "list_create list_item_delete list_add_item search_and_replace search_index_delete search_replace"
    " view_update view_create query_execute query_insert check_in check_out check_checkbox scan_and_fix"
    " scan_start diff_apply audit_enable profile_update trace_start score_submit match_create sample_insert"
    " convert_lead extract_archive copy_list archive_list clear_list report_problem report_user track_event"
    " monitor_website watch_repository poll_create ask_and_apply ask_human tell_user measure_reset benchmark_run"
    " benchmark_start profile_application display_image scan_and_quarantine locate_and_zarf convert_file extract_to_x"
    " list_for_sale poll_vote list_clear view_reset trace_clear broker_is_delete user_has_create"
    " tags_are_removed_delete gzip_file",
    "readout": "clear_history export_history flush_logs email_summary process_logs post_status delete_info reset_stats"
    " update_details set_status send_quote upload_metrics import_logs rotate_logs drop_statistics",
    "state": "power_state window_size player_volume light_settings group_users tag_resources message_users file_report"
    " bug_report yeet_status frobnicate_keys shuffle_list flip_version bump_versions yeet_user_list",
    "by": "delete_users_by_id yeet_user_by_id sort_by move_by remove_by_name",
    "http": "users_post users_delete users_put users_patch api_v1_users_post PATCH_item postUsersSearch",
}


@each_row("group", LOOKALIKES)
def test_names_that_only_look_like_reads_are_never_classified_as_reads(group):
    passed = [
        name for name in LOOKALIKES[group].split() if classify({"name": name}, ()).category is Category.READ
    ]
    assert passed == []


@each_row("reader", READERS)
def test_no_reading_word_hides_a_second_verb(reader):
    names = [f"{reader}_{joint}_{action}_user" for joint in ("and", "or", "then") for action in ACTIONS]
    names += [f"{reader}_user_{action}" for action in ACTIONS]
    assert [name for name in names if classify({"name": name}, ()).category is Category.READ] == []


@each_row("actor", ACTORS)
def test_a_name_that_begins_with_an_action_verb_is_never_a_read(actor):
    alone = [actor, f"{actor}_it", f"{actor}_item", f"{actor}_user_record"]
    read = [name for name in alone if classify({"name": name}, ()).category is Category.READ]
    assert [name for name in read if "track" not in name] == []


@each_row("word", sorted(lexicon.READOUTS | lexicon.STATES | lexicon.NOUNS))
def test_a_noun_after_delete_or_update_never_makes_a_read(word):
    assert classify({"name": f"delete_{word}"}, ()).category is Category.DESTRUCTIVE
    assert classify({"name": f"update_{word}"}, ()).category is not Category.READ


def test_the_number_of_reading_verbs_is_fixed_here():
    assert len(READERS) == 140, "give each new reading word a look-alike above, then count it here"


def test_each_verb_is_in_one_row():
    assert sum(len(row) for _, _, _, row in GROUPS) == len(VERBS)


def test_words_are_lowercase_ascii_like_the_parts_of_a_split_name():
    tables = [value for value in vars(lexicon).values() if isinstance(value, frozenset)]
    words = set(VERBS).union(*tables)
    assert [word for word in words if not (word.isascii() and word.isalnum() and word == word.lower())] == []


def test_the_special_lists_contain_only_known_verbs():
    for table in (lexicon.ENDS_AS_NOUN, lexicon.ENDS_AS_VERB, lexicon.NAMES_A_THING, lexicon.LISTLIKE):
        assert table <= set(VERBS)

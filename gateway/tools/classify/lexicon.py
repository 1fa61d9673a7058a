"""The words of tool names: the effect of each verb, and nouns that name data to read (PURE).

A *firm* verb is rarely a noun (`delete`); a *loose* verb often is (`deploy`, `order`, `list`). A firm verb decides
anywhere in the name, a loose verb only in some positions. Each verb is in one group.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType


class Category(StrEnum):
    """The effect of a tool, in PolicyLayer's terms; Other is a tool that was not understood."""

    READ = "Read"
    WRITE = "Write"
    EXECUTE = "Execute"
    DESTRUCTIVE = "Destructive"
    FINANCIAL = "Financial"
    OTHER = "Other"


#: From least to most strict; the last two are equal.
RANK = {
    Category.READ: 0,
    Category.OTHER: 1,
    Category.WRITE: 2,
    Category.EXECUTE: 3,
    Category.FINANCIAL: 4,
    Category.DESTRUCTIVE: 4,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Verb:
    """One verb: its category, whether it is firm, and the phrase that explains it."""

    word: str
    category: Category
    firm: bool
    meaning: str


FIRM, LOOSE = True, False


def words(text: str) -> frozenset[str]:
    """Split a text into a set of words."""
    return frozenset(text.split())


RETRIEVE = words("""
    get fetch retrieve describe read obtain browse lookup ls cat grep glob show peek introspect inspect
    enumerate discover whoami locate resolve recall hget hgetall hmget mget hexists hkeys hvals hlen
    smembers sismember scard lrange llen lindex zrange zcard zscore xrange xlen pttl ttl dbsize strlen
    exists getall nslookup whois ps blame decompile disassemble
""")
EXAMINE = words("""
    validate verify compare contrast analyze analyse analyzer explain examine assess evaluate detect
    identify infer simulate calculate calc lint parse diagnose troubleshoot recommend suggest advise
    predict classify summarize summarise summarizer decode recognize tokenize geocode traceroute clarify
    interpret ping wait await think thinking sequentialthinking proofread
""")
LOOK_UP = words("""
    list search find view forecast count estimate preview head tail stat dir extract compute query check
    scan diff audit observe trace aggregate measure score rank match explore echo noop ask question
    translate convert sample scrape is has can are does ocr transcribe guess poll
""")
REPLACE = words("""
    put upsert set save store write hset hmset mset setex setnx lset
""")
CREATE = words("""
    create add insert append prepend draft upload attach enroll enrol provision register generate
    compose author submit onboard scaffold bootstrap init initialize initialise materialize ingest sadd
    lpush rpush zadd xadd incr decr incrby mkdir hire admit prescribe chmod chown touch enqueue populate
    duplicate memorize remember encrypt establish vectorize instantiate embed annotate inject make
    construct produce compile containerize synthesize paste augment enrich ensure
""")
CHANGE = words("""
    update edit modify change alter patch rename move replace adjust configure reconfigure customize
    toggle enable disable activate deactivate assign unassign reassign allocate grant allow permit
    authorize deny block unblock ban unban mute unmute hide unhide lock unlock suspend unsuspend promote
    demote upgrade downgrade resize reorder rearrange rotate extend shorten increase decrease scale
    rescale mark unmark untag unarchive archive unlink unpublish unstar unfollow unlike unpin pin
    unschedule unsubscribe restore undelete revert reopen close complete finish finalize finalise
    transition escalate acknowledge ack approve unapprove reject decline accept confirm dismiss merge
    rebase amend squash stage unstage stash transform normalize sanitize redact fix autofix repair
    refactor reformat apply adopt associate disassociate dissociate bind unbind relate protect unprotect
    harden expire persist rpop lpop spop xack manage turn dim brighten snooze unsnooze defer reschedule
    postpone follow join leave enlist extrude bevel subdivide decimate retarget sculpt fillet chamfer
    align distribute ungroup regroup crop trim splice concat stitch override bump flip increment
    decrement substitute relocate relabel retitle recategorize categorize reprioritize prioritize
    unassociate favorite unfavorite bookmark unbookmark subscribe undo redo colorize upscale transcode
    enhance watermark decrypt unwatch dequeue reconcile wrap unwrap taint untaint uncheck advance
    discharge organize organise tweak tidy reactivate renew anonymize deprecate mutate
""")
SEND = words("""
    send resend reply respond publish republish broadcast forward notify tweet retweet invite reinvite
    announce tell say speak emit share unshare syndicate
""")
MAKE_OR_CHANGE = words("""
    post message display issue track answer place receive consume comment note tag label star like flag
    rate group map link index import export backup record schedule plan design model copy clone fork
    mirror snapshot log email mail sms text document react whisper dm draw paint color colour mask
    filter sort mix queue push pull commit request release branch pack unpack compress zip unzip gzip gunzip
    download package stamp sign book reserve rsvp vote upvote downvote pair mount unmount load reload
    cache seed propose give tts render craft mine select alias delegate contact chat prompt feedback
    freeze unfreeze thaw hold take grab capture setup report prepare stt dock undock sync resync refresh
    reindex handle interpolate cherry split checkin attachment format review scaleup
""")
DRIVE = words("""
    run rerun spawn execute exec eval invoke call trigger retrigger start stop restart launch relaunch
    boot reboot shutdown poweroff poweron hibernate abort retry resume pause unpause halt interrupt
    dispatch redispatch redeploy undeploy rollback install reinstall perform orchestrate automate crawl
    replay requeue ring dial eject vibrate honk summon solve click dblclick doubleclick tap swipe hover
    scroll drag press keypress keydown keyup navigate goto fill focus blur interact login signin
    authenticate logout signout connect reconnect disconnect failover switchover migrate arm disarm
    teleport rebuild recreate cordon uncordon drain enact impersonate assume sudo ssh rpc curl wget fuzz
    exploit bruteforce attack hack phish initiate
""")
PROCESS = words("""
    deploy build test profile benchmark monitor watch process play skip control operate act script
    command cmd shell bash powershell terminal open tunnel proxy print debug step continue next previous
    seek jump switch type input key mouse gesture train finetune lifecycle power use spin cycle compact
    optimize optimise vacuum tune warmup drive fly land walk shoot wake rollout go
""")
REMOVE = words("""
    delete del remove rm rmdir unset destroy erase purge wipe shred truncate terminate kill uninstall
    detach revoke deregister unregister decommission deprovision teardown evict expunge discard
    obliterate nuke delist offboard unenroll hdel xdel lrem srem zrem flushdb flushall overwrite expel
    deallocate disband dismantle cancel prune annihilate deauthorize invalidate
""")
CLEAR = words("""
    drop clear clean cleanup flush empty reset kick cut trash forget void
""")
PAY = words("""
    pay repay prepay refund buy sell purchase withdraw donate stake unstake restake invest divest
    liquidate disburse reimburse topup cashout
""")
TRADE = words("""
    transfer charge order trade swap bid bet tip mint burn borrow lend loan deposit redeem claim airdrop
    hedge bridge wager checkout bill remit payout settle transact
""")

GROUPS = (
    (Category.READ, FIRM, "retrieves data and changes nothing", RETRIEVE),
    (Category.READ, FIRM, "examines data and reports on it", EXAMINE),
    (Category.READ, LOOSE, "looks something up", LOOK_UP),
    (Category.WRITE, FIRM, "creates or replaces something", REPLACE),
    (Category.WRITE, FIRM, "creates something or adds to it", CREATE),
    (Category.WRITE, FIRM, "changes existing data", CHANGE),
    (Category.WRITE, FIRM, "sends something to others", SEND),
    (Category.WRITE, LOOSE, "creates or changes something", MAKE_OR_CHANGE),
    (
        Category.EXECUTE,
        FIRM,
        "starts, stops or controls a process whose effect depends on its arguments",
        DRIVE,
    ),
    (Category.EXECUTE, LOOSE, "starts a process whose effect depends on its arguments", PROCESS),
    (Category.DESTRUCTIVE, FIRM, "removes something, often for good", REMOVE),
    (Category.DESTRUCTIVE, LOOSE, "clears or drops something", CLEAR),
    (Category.FINANCIAL, FIRM, "moves money or makes a financial commitment", PAY),
    (Category.FINANCIAL, LOOSE, "moves money or makes a financial commitment", TRADE),
)


def _verbs() -> Mapping[str, Verb]:
    """Build the table of verbs from the groups."""
    table: dict[str, Verb] = {}
    for category, firm, meaning, row in GROUPS:
        for word in row:
            table[word] = Verb(word=word, category=category, firm=firm, meaning=meaning)
    return MappingProxyType(table)


VERBS = _verbs()

# Firm verbs that are nouns at the end of a name: `get_last_update`, `get_image_set`, `list_run`.
ENDS_AS_NOUN = words("""
    set update change move run call start stop upload upgrade trigger invite draft install purchase
    refund share follow issue put stake buy sell pay launch drag click press focus fill resume pause
    retry patch grant block ban mute lock archive merge restore forward broadcast submit crawl boot
    leave scale store pin turn trim crop permit complete duplicate reply replay join call override
    author touch attach favorite bookmark close
""")

# Words after which `set`, `change`, `run` ... are nouns: `record_set`, `api_call`.
SET_NOUNS = words("""
    record change data image result rule replica stateful daemon char key work as training test skill
""")

# Nouns that are only read, so that a name needs no verb: `cluster_statistics`.
READOUTS = words("""
    info information detail details summary summaries stats stat statistics metric metrics overview
    documentation docs guide guides guidance guideline guidelines help forecast weather usage health
    insight insights trend trends instructions headlines leaderboard leaderboards ranking rankings
    standings timeseries timeline quote quotes capabilities availability news changelog faq glossary
    recommendations suggestions analytics analysis breakdown definition definitions examples diagnostics
    diagnosis explorer inspector reader readme weekday earnings fundamentals ohlc ohlcv candlestick
    klines ticker tickers orderbook marketcap sentiment citations bibliography tradeoff precheck
    advisory holidays sunrise sunset directions elevation timezone geolocation dictionary thesaurus
    synonyms lyrics discography filmography biography trivia horoscope joke jokes scoreboard backlinks
    serp similarity correlation uptime screenshot calculator converter checker validator finder
    summarizer matrix activity feed everything
""")

# Nouns that may be read or set: they indicate a read only after a known noun.
STATES = words("""
    profile history histories logs log time date datetime results facts differences distance detection
    top changes snapshots issues price prices pricing balance balances requests responses calls
    statement sheet dividends snapshot report status states version versions values schema schemas
    metadata types configurations fields columns tables list tree contents counts limits quotas keys
    score scores rates rate reports report items members entries messages notifications alerts events
    errors warnings dependencies references accounts portfolio positions holdings orders trades
    transactions templates locations sessions environments contexts groups users projects files pages
    servers clusters nodes databases resources categories indexes indices data feed reserves liquidity
    lineup injuries credits showtimes routes schedules hours reviews ratings comments replies followers
    following posts tweets videos images photos channels playlists tracks albums artists songs lyrics
    episodes seasons genres
""")

# Words that are always nouns before such a state: `stock_price`, `order_status`.
NOUNS = words("""
    word configuration config asset integration image template transaction directory git helm kubectl
    docker terraform npm tree registry sql income bank cash scene object viewport audit activity system
    current latest recent top popular trending today upcoming active available related similar random
    nearby historical daily weekly monthly past live user account project repo repository customer
    product file folder page table database cluster node pod service server host domain stock market
    crypto coin token company flight hotel game player team movie song album artist playlist author
    paper article currency exchange contract wallet block address gas fee app application device sensor
    city country airport train bus vehicle car station organization org workspace namespace container
    volume disk vm instance bucket collection function lambda event incident alert ticket invoice
    subscription job pipeline workflow system network memory cpu gpu battery storage session thread
    channel video audio photo patient lead campaign ad keyword seo site website url ip dns certificate
    key secret policy role budget cost billing option futures forex fx bond etf fund index sector
    economy gdp inflation mortgage property recipe food nutrition exercise sleep heart calendar contact
    email mailbox inbox label agent model dataset experiment metric dashboard entity class method symbol
    schema column field gene protein drug compound disease trial species chart air traffic parking
    earthquake football soccer basketball nba nfl mlb f1 chess anime manga book subreddit hashtag nft
    token pool vault dao defi chain validator mempool fiat bitcoin eth solana space asteroid satellite
    browser tab page console
""")

# Loose verbs that are nouns when only a report follows: `order_history`, `build_logs`.
NAMES_A_THING = words("""
    build test order trade commit branch release message comment request process schedule bet swap plan
    document model record map index review bill deposit loan train power deploy backup import export
    queue group package log email mail sms text label tag link filter snapshot type key input attachment
    use format color issue stamp book note place cache contact chat flag sync transfer charge tunnel
    proxy claim prompt feedback script alias pull profile benchmark
""")
REPORTS = words("""
    info information detail details summary stats statistics metrics history log logs status results
    result
""")

JOINS = words("and or then plus n")
SINKS = words("file files disk folder directory path workspace local clipboard s3 bucket drive desktop")
WRAPPERS = words("mcp api tool tools v1 v2 v3 v4 rest fn the a")
MANY = words("all batch bulk mass multi multiple many every everything everyone entire")
MANNERS = words("""
    batch bulk mass multi force safe quick async try soft hard auto smart advanced simple direct my
""")

# Loose reading verbs that are verbs even after an unknown word: `repo_search_commits`.
READS_BEHIND_A_NOUN = words("search list find view check count estimate preview is has are")
# Words that are verbs even at the end, after a loose reading verb: `view_update`.
ENDS_AS_VERB = words("""
    update set move share start stop run upload attach trigger scale restore merge vote submit clear
    reset drop clean flush deploy
""")
PREPOSITIONS = words("""
    by for of from in with without on at per as about between since until under over via using
""")
COMPLAINTS = words("file bug spam abuse problem issue user incident error crash violation")
# Loose reading verbs that may be nouns at the end: after an unknown word they are no evidence (`shuffle_list`).
LISTLIKE = words("list score sample match rank audit trace question view measure poll head tail count")
LISTINGS = words("list search lookup")
ACTS_ON_A_LIST = words("""
    test import export email mail deploy use text sms format link filter index map log record backup
    process note comment message label tag group cache contact chat flag sync transfer charge tunnel
    proxy claim prompt feedback script alias pull profile benchmark
""")

"""Verbs whose category depends on their object: `cancel_run` stops, `cancel_order` destroys (PURE)."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.tools.classify.lexicon import Category, words

#: Columns: verbs, objects, category, meaning. The first matching row wins.
TABLE = """
create send issue submit make process place finalize finalise capture approve accept schedule initiate confirm execute release request generate open put | payment payments refund refunds payout payouts charge charges transfer transfers withdrawal trade trades purchase checkout order orders bid bet donation invoice invoices deposit loan funds | Financial | moves money or makes a financial commitment
send | transaction transactions eth btc sol usdc usdt token tokens money crypto sats lamports tip gift coins coin | Financial | moves money
close open | position positions | Financial | trades
bridge | token tokens asset assets eth usdc funds | Financial | moves money
transfer | repository repo issue file files ownership owner project domain call app data team page chat session control conversation project ticket | Write | transfers it to another owner
checkout | git branch commit ref repo repository worktree tag file | Write | changes the working copy
fetch | git origin remote upstream | Write | updates the local copy
cancel | run runs job jobs build workflow pipeline query export import task tasks execution scan crawl deployment deploy operation download upload process generation training | Execute | stops a process
reset | password passwords credential credentials view zoom camera filter filters timer mfa factors factor key token viewport | Write | resets it
rebuild | droplet instance server linode vm machine | Destructive | wipes its disk
resolve | issue issues incident incidents alert alerts thread threads comment comments conversation discussion ticket case dispute conflict conflicts finding todo blocker error review | Write | closes it
recall | message email mail | Write | recalls it
initialize initialise init establish | connection connections | Execute | connects
snapshot | droplet server vm instance volume disk database db cluster container bucket datastore | Write | takes a copy
log | food meal meals water sleep mood exercise workout weight nutrition drug expense | Write | records it
check | box checkbox radio in out off | Execute | operates a form
check | todo checklist | Write | ticks it off
rate | movie song album artist recipe book anime manga episode driver ride | Write | rates it
show | notification toast message dialog alert popup banner notify | Write | shows it to people
take capture grab | screenshot screenshots | Read | captures the screen
snapshot | browser page dom accessibility | Read | captures the page
evaluate interpret | script js javascript browser puppeteer page expression code cell python | Execute | runs a script
type | keys text into | Execute | types
convert | lead leads item items issue ticket task record account case opportunity quote order contact | Write | changes a record
convert | crypto balance funds | Financial | trades
convert | file files document pdf docx image images video audio folder | Write | writes a file
ask question ping | human user agent person team channel member everyone expert people | Write | contacts people
verify | email otp user domain phone identity sender | Write | confirms an identity
list | sale nft | Financial | offers it for sale
translate | object mesh layer shape node vertices | Write | moves it
extract | archive zip tar audio frame frames clip clips stems | Write | writes files
read | write | Write | also writes
apply plan init upgrade | terraform tofu pulumi helm run | Execute | runs a deployment
track | package parcel shipment delivery flight status order shipping | Read | looks it up
test check | connection connections connectivity connector connectors | Read | tests a connection
send | command commands key keys keystroke keystrokes input keypress keypresses request rpc | Execute | controls a process
make request | request http api rest graphql rpc | Execute | calls an API
submit create | run execution invocation | Execute | starts a process
submit | job jobs task script spark step query batch prompt | Execute | starts a process
select upload resize close handle set evaluate mouse | browser option dialog tab | Execute | controls a browser
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Idiom:
    """One row: any of these verbs with any of these objects has this category."""

    verbs: frozenset[str]
    objects: frozenset[str]
    category: Category
    meaning: str


def _parse_row(line: str) -> Idiom:
    verbs, objects, category, meaning = (cell.strip() for cell in line.split("|"))
    return Idiom(verbs=words(verbs), objects=words(objects), category=Category(category), meaning=meaning)


IDIOMS = tuple(_parse_row(line) for line in TABLE.strip().splitlines())

"""What python-tuf says to the vectors of the oracle: a third opinion, asked by hand.

usage: python_tuf.py tests/vectors/oracle/*.json

Prints one line for each vector: its class, what we say, what sigstore-tuf says, what python-tuf says to
the same file or path (accepted, refused, nothing), and who is right as the vector has it.
"""

import datetime
import json
import pathlib
import sys
import tempfile
from urllib.parse import quote

from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import Updater
from tuf.ngclient.fetcher import FetcherInterface

STEPS = ["root", "timestamp", "snapshot", "targets"]


def content(value):
    return value.encode() if isinstance(value, str) else bytes.fromhex(value["hex"])


class Mirror(FetcherInterface):
    """Serves a round: each role's file for whatever version is asked for, roots by their number."""

    def __init__(self, case_round):
        self.round = case_round
        self.asked = "root"

    def _fetch(self, url):
        stem = url.rsplit("/", 1)[1].removesuffix(".json")
        version, dot, name = stem.partition(".")
        if dot and version.isdigit():
            stem = name
        if stem == "root":
            found = self.round["roots"].get(version)
            self.asked = "root" if found else self.asked
        else:
            names = {quote(role, ""): role for role in self.round["files"]}
            self.asked = names.get(stem, stem)
            found = self.round["files"].get(self.asked)
        if found is None:
            raise DownloadHTTPError("not served", 404)
        yield content(found)


def step(role):
    return STEPS.index(role) if role in STEPS else len(STEPS)


def judge(vector):
    case, difference = vector["case"], vector["difference"]
    with tempfile.TemporaryDirectory() as directory:
        for number, case_round in enumerate(case["rounds"][: difference["round"] + 1]):
            mirror = Mirror(case_round)
            asked_path = difference["path"] if number == difference["round"] else None
            bootstrap = content(case["root"]) if number == 0 else None
            try:
                updater = Updater(directory, "http://x/m/", directory, "http://x/t/", mirror, bootstrap=bootstrap)
                now = datetime.datetime.fromtimestamp(case_round["now"], datetime.timezone.utc)
                updater._trusted_set.reference_time = now
                updater.refresh()
                for path in case_round["paths"]:
                    if path != asked_path:
                        try:
                            updater.get_targetinfo(path)
                        except Exception:
                            pass
                if asked_path is not None:
                    return "accepted" if updater.get_targetinfo(asked_path) else "nothing"
            except Exception:
                if number < difference["round"]:
                    continue
                refused = asked_path is not None or step(mirror.asked) <= step(difference["role"])
                return "refused" if refused else "accepted"
    return "accepted"


for name in sys.argv[1:]:
    vector = json.loads(pathlib.Path(name).read_text())
    say = vector["difference"]
    print(f"{vector['class']:34} {say['ours']['verdict']:9} {say['theirs']['verdict']:9} {judge(vector):9} {vector['right']}")

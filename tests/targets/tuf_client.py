"""What any TUF client does with a repository: trust root 1, refresh, look a target up, download it.

usage: tuf_client.py BASE_URL ROOT_FILE STATE_DIRECTORY TARGET...

Prints one JSON object: the versions of the metadata that it trusts now, and for each target its
length and the path of the downloaded file. The state directory is the client's memory from one run to the next.
"""
import inspect
import json
import os
import sys

from tuf.ngclient import Updater

base, root_file, state, *targets = sys.argv[1:]
metadata, downloads = os.path.join(state, "metadata"), os.path.join(state, "targets")
os.makedirs(metadata, exist_ok=True)
os.makedirs(downloads, exist_ok=True)
with open(root_file, "rb") as file:
    root = file.read()

arguments = {
    "metadata_dir": metadata,
    "metadata_base_url": base + "/metadata/",
    "target_dir": downloads,
    "target_base_url": base + "/targets/",
}
if "bootstrap" in inspect.signature(Updater.__init__).parameters:
    arguments["bootstrap"] = root
elif not os.path.exists(os.path.join(metadata, "root.json")):
    with open(os.path.join(metadata, "root.json"), "wb") as file:
        file.write(root)
updater = Updater(**arguments)
updater.refresh()

found = {}
for path in targets:
    info = updater.get_targetinfo(path)
    if info is None:
        found[path] = None
        continue
    found[path] = {"length": info.length, "sha256": info.hashes["sha256"], "file": updater.download_target(info)}


def version(name):
    with open(os.path.join(metadata, name + ".json"), "rb") as file:
        return json.load(file)["signed"]["version"]


versions = {name: version(name) for name in ("root", "timestamp", "snapshot", "targets")}
json.dump({"versions": versions, "targets": found}, sys.stdout)

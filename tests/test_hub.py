"""The door to the Hub, in a process of its own: what the client is told before it is used."""

import os
import subprocess
import sys

import pytest

ASK = """
from huggingface_hub import constants
from hubedit.hub import Hub
Hub()
print(constants.HF_HUB_DISABLE_XET)
"""


@pytest.mark.parametrize(
    ("endpoint", "off"), [("http://127.0.0.1:9", "True"), ("https://huggingface.co", "False")]
)
def test_large_files_go_by_xet_to_hugging_face_alone(endpoint, off):
    kept = {name: value for name, value in os.environ.items() if "XET" not in name}
    done = subprocess.run(
        [sys.executable, "-c", ASK],
        env={**kept, "HF_ENDPOINT": endpoint},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == off

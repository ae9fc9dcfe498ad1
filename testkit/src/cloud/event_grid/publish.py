"""Publishes events with Microsoft's library for Python as lines of JSON on its standard input order; `publishers.rs` beside
it describes them. Each order gets one line of answer.
"""

import json
import logging
import sys
import time
from datetime import datetime, timezone

from azure.core.credentials import AccessToken, AzureKeyCredential, AzureSasCredential
from azure.core.exceptions import HttpResponseError
from azure.eventgrid import EventGridPublisherClient, generate_sas


# It warns that it does not hand options of a request on to each event.
logging.disable(logging.WARNING)


class Token:
    """A token that was got before."""

    def __init__(self, token):
        self.token = token

    def get_token(self, *scopes, **_options):
        if scopes != ("https://eventgrid.azure.net/.default",):
            raise ValueError(f"a token for {scopes} is asked for")
        return AccessToken(self.token, int(time.time()) + 3600)


def credential(order):
    if "token" in order:
        return Token(order["token"])
    if "signed_until" in order:
        until = datetime.fromtimestamp(order["signed_until"], timezone.utc)
        return AzureSasCredential(generate_sas(order["endpoint"], order["key"], until))
    return AzureKeyCredential(order["key"])


def publish(order):
    # The client for custom topics drops the options of its constructor, so they come with each call.
    options = {"retry_total": 0, "connection_timeout": 60, "read_timeout": 60}
    if order.get("authority"):
        options["connection_verify"] = order["authority"]
    client = EventGridPublisherClient(order["endpoint"], credential(order), namespace_topic=order.get("topic"))
    with client:
        client.send(order["events"], **options)


for line in sys.stdin:
    try:
        publish(json.loads(line))
        answer = {"ok": {}}
    except HttpResponseError as error:
        # A 404 comes in another error's clothes.
        if error.status_code is None and isinstance(error.__cause__, HttpResponseError):
            error = error.__cause__
        told = error.error
        details = [detail.code for detail in told.details] if told and told.details else []
        answer = {
            "error": {
                "status": error.status_code,
                "code": told.code if told else None,
                "details": details,
                "text": str(error),
            }
        }
    except Exception as error:  # The library refuses without asking the service: the test judges it.
        answer = {"error": {"status": None, "code": type(error).__name__, "details": [], "text": str(error)}}
    print(json.dumps(answer), flush=True)

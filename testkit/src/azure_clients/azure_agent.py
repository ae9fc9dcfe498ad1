"""A client of Service Bus on Microsoft's own library that does what lines of JSON on its standard input tell it.

`python azure_agent.py sync` uses `azure.servicebus`, `python azure_agent.py asyncio` uses `azure.servicebus.aio`. Each
order gets one line of answer. `azure_agent.mjs` understands the same orders; `mod.rs` beside it describes them.
"""

import asyncio
import base64
import hashlib
import inspect
import json
import sys
from datetime import datetime, timedelta, timezone

from azure.servicebus import (
    NEXT_AVAILABLE_SESSION,
    ServiceBusMessage,
    ServiceBusReceiveMode,
    ServiceBusSubQueue,
    TransportType,
)
from azure.servicebus.exceptions import OperationTimeoutError

ASYNCIO = sys.argv[1] == "asyncio"
if ASYNCIO:
    from azure.servicebus.aio import AutoLockRenewer, ServiceBusClient
else:
    from azure.servicebus import AutoLockRenewer, ServiceBusClient

# Bodies up to this size are shown; of larger ones only size and hash.
SHOWN = 1000


async def done(value):
    """What a call of either library comes to."""
    return await value if inspect.isawaitable(value) else value


async def opened(handler):
    return await handler.__aenter__() if ASYNCIO else handler.__enter__()


def milliseconds(moment):
    return None if moment is None else round(moment.timestamp() * 1000)


def text(value):
    return value.decode() if isinstance(value, bytes) else value


def pattern(size):
    """The same bytes as in `azure_agent.mjs`."""
    return bytes(place * 31 % 251 for place in range(size))


def message(order):
    body = pattern(order["size"]) if "size" in order else order.get("body", "")
    made = ServiceBusMessage(
        body,
        application_properties=order.get("properties"),
        session_id=order.get("session"),
        message_id=order.get("id"),
        subject=order.get("subject"),
        content_type=order.get("content_type"),
        correlation_id=order.get("correlation"),
        to=order.get("to"),
        reply_to=order.get("reply_to"),
        reply_to_session_id=order.get("reply_to_session"),
    )
    if "ttl_ms" in order:
        made.time_to_live = timedelta(milliseconds=order["ttl_ms"])
    return made


def told(received):
    body = b"".join(received.body) if received.body_type.name == "DATA" else str(received).encode()
    facts = {
        "id": received.message_id,
        "session": received.session_id,
        "size": len(body),
        "sha256": hashlib.sha256(body).hexdigest(),
        "sequence": received.sequence_number,
        "enqueued_ms": milliseconds(received.enqueued_time_utc),
        "expires_ms": milliseconds(received.expires_at_utc),
        "delivery_count": received.delivery_count,
        "subject": received.subject,
        "content_type": received.content_type,
        "correlation": received.correlation_id,
        "to": received.to,
        "reply_to": received.reply_to,
        "reply_to_session": received.reply_to_session_id,
        "properties": {text(name): text(value) for name, value in (received.application_properties or {}).items()},
        "dead_reason": received.dead_letter_reason,
        "dead_description": received.dead_letter_error_description,
        "dead_source": received.dead_letter_source,
        "state": received.state.name.lower(),
    }
    if len(body) <= SHOWN:
        facts["body"] = body.decode(errors="replace")
    return facts


class Agent:
    def __init__(self):
        self.client = None
        self.timeout = None
        self.senders = {}
        # By the name an order gave them: receivers, and the messages each has, by sequence number.
        self.receivers = {}
        self.messages = {}
        self.renewer = None

    async def connect(self, order):
        self.timeout = order["timeout_ms"] / 1000
        options = {"retry_total": 0, "connection_verify": order.get("authority")}
        if order.get("address"):
            options["custom_endpoint_address"] = order["address"]
        if order.get("websocket"):
            options["transport_type"] = TransportType.AmqpOverWebsocket
        self.client = ServiceBusClient.from_connection_string(order["connection"], **options)

    async def sender(self, order):
        # The name is that of a queue or of a topic.
        entity = order["entity"]
        if entity not in self.senders:
            self.senders[entity] = await opened(self.client.get_queue_sender(entity))
        return self.senders[entity]

    async def send(self, order):
        sender = await self.sender(order)
        messages = [message(one) for one in order["messages"]]
        if not order.get("batch"):
            for one in messages:
                await done(sender.send_messages(one))
            return {"batches": 0}
        batches, batch = 0, await done(sender.create_message_batch())
        for one in messages:
            try:
                batch.add_message(one)
            except ValueError:
                await done(sender.send_messages(batch))
                batches, batch = batches + 1, await done(sender.create_message_batch())
                batch.add_message(one)
        await done(sender.send_messages(batch))
        return {"batches": batches + 1}

    async def schedule(self, order):
        sender = await self.sender(order)
        at = datetime.now(timezone.utc) + timedelta(milliseconds=order["in_ms"])
        messages = [message(one) for one in order["messages"]]
        return {"sequences": await done(sender.schedule_messages(messages, at))}

    async def cancel(self, order):
        await done((await self.sender(order)).cancel_scheduled_messages(order["sequences"]))

    def receiver(self, order, **options):
        if order.get("mode") == "delete":
            options["receive_mode"] = ServiceBusReceiveMode.RECEIVE_AND_DELETE
        topic, _, subscription = order["entity"].partition("/")
        if subscription:
            return self.client.get_subscription_receiver(topic, subscription, **options)
        return self.client.get_queue_receiver(topic, **options)

    async def open(self, order):
        options = {"sub_queue": ServiceBusSubQueue.DEAD_LETTER} if order.get("dead") else {}
        await self.keep(order, self.receiver(order, **options))

    async def accept(self, order):
        session = NEXT_AVAILABLE_SESSION if order.get("session") is None else order["session"]
        receiver = await self.keep(order, self.receiver(order, session_id=session, max_wait_time=self.timeout))
        if "renew_ms" in order:
            self.renewer = AutoLockRenewer(max_lock_renewal_duration=order["renew_ms"] / 1000)
            self.renewer.register(receiver, receiver.session)
        return {
            "session": receiver.session.session_id,
            "locked_until_ms": milliseconds(receiver.session.locked_until_utc),
        }

    async def keep(self, order, receiver):
        self.receivers[order["receiver"]] = await opened(receiver)
        self.messages[order["receiver"]] = {}
        return receiver

    async def receive(self, order):
        name = order["receiver"]
        wait = order["wait_ms"] / 1000
        found = await done(self.receivers[name].receive_messages(max_message_count=order["max"], max_wait_time=wait))
        self.messages[name].update((one.sequence_number, one) for one in found)
        return {"messages": [told(one) for one in found]}

    async def deferred(self, order):
        name = order["receiver"]
        found = await done(self.receivers[name].receive_deferred_messages(order["sequences"]))
        self.messages[name].update((one.sequence_number, one) for one in found)
        return {"messages": [told(one) for one in found]}

    async def peek(self, order):
        receiver = self.receivers[order["receiver"]]
        found = await done(receiver.peek_messages(order["max"], sequence_number=order.get("from", 1)))
        return {"messages": [told(one) for one in found]}

    async def settle(self, order):
        receiver = self.receivers[order["receiver"]]
        one = self.messages[order["receiver"]][order["sequence"]]
        if order["how"] == "dead_letter":
            text = {"reason": order.get("reason"), "error_description": order.get("description")}
            await done(receiver.dead_letter_message(one, **text))
        else:
            await done(getattr(receiver, order["how"] + "_message")(one))

    async def renew(self, order):
        receiver = self.receivers[order["receiver"]]
        if "sequence" not in order:
            return {"locked_until_ms": milliseconds(await done(receiver.session.renew_lock()))}
        one = self.messages[order["receiver"]][order["sequence"]]
        return {"locked_until_ms": milliseconds(await done(receiver.renew_message_lock(one)))}

    async def state(self, order):
        state = await done(self.receivers[order["receiver"]].session.get_state())
        return {"state": None if state is None else base64.b64encode(bytes(state)).decode()}

    async def set_state(self, order):
        state = order["state"]
        state = None if state is None else base64.b64decode(state)
        await done(self.receivers[order["receiver"]].session.set_state(state))

    async def close(self, order):
        await done(self.receivers.pop(order["receiver"]).close())

    async def workers(self, order):
        """Takes whatever session is next, drains it and goes on, several times at once, until there is none."""
        workers = [self.worker(order) for _ in range(order["count"])]
        if ASYNCIO:
            parts = await asyncio.gather(*workers)
        else:
            # The other library blocks: one thread for each.
            parts = await asyncio.gather(*(asyncio.to_thread(asyncio.run, worker) for worker in workers))
        return {"visits": [visit for part in parts for visit in part]}

    async def worker(self, order):
        visits = []
        while True:
            receiver = self.receiver(order, session_id=NEXT_AVAILABLE_SESSION, max_wait_time=self.timeout)
            try:
                await opened(receiver)
            except OperationTimeoutError:
                return visits
            bodies = []
            while True:
                found = await done(receiver.receive_messages(max_message_count=order["max"], max_wait_time=0.5))
                for one in found:
                    bodies.append(str(one))
                    await done(receiver.complete_message(one))
                if not found:
                    break
            visits.append({"session": receiver.session.session_id, "bodies": bodies})
            await done(receiver.close())

    async def leave(self, _order):
        if self.renewer is not None:
            await done(self.renewer.close())
        for one in [*self.receivers.values(), *self.senders.values(), self.client]:
            await done(one.close())


async def answer(agent, order):
    try:
        return {"ok": await getattr(agent, order["do"])(order) or {}}
    # Whatever it is, it is the test that judges.
    except Exception as error:
        condition = getattr(error, "_condition", None)
        return {"error": {"code": type(error).__name__, "condition": text(condition), "text": str(error)}}


async def main():
    agent = Agent()
    while True:
        line = await asyncio.to_thread(sys.stdin.readline)
        if not line:
            return
        order = json.loads(line)
        print(json.dumps(await answer(agent, order), default=str), flush=True)
        if order["do"] == "leave":
            return


asyncio.run(main())

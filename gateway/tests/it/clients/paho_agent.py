"""An MQTT client on Eclipse Paho that does what lines of JSON on its standard input tell it, and says what happened.

`mqttjs_agent.mjs` understands the same lines; `agent.rs` describes them.
"""

import json
import sys
import threading

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

saying = threading.Lock()


def say(event, **facts):
    with saying:
        print(json.dumps({"event": event, **facts}), flush=True)


def properties(kind, **values):
    made = Properties(kind)
    for name, value in values.items():
        if value is not None:
            setattr(made, name, value)
    return made


class Agent:
    def __init__(self):
        self.client = None
        self.version = None
        self.subscriptions = {}
        # By packet id: payloads of publishes, and reason codes of those that were complete before we knew their id.
        self.publishes = {}
        self.early = {}
        self.lock = threading.Lock()

    def connect(self, order):
        self.version = order["version"]
        websocket = order.get("path")
        options = {"transport": "websockets" if websocket else "tcp"}
        if self.version == 4:
            options["clean_session"] = order["clean"]
        protocol = mqtt.MQTTv5 if self.version == 5 else mqtt.MQTTv311
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, order["client"], protocol=protocol, **options)
        if websocket:
            client.ws_set_options(path=websocket)
        if order.get("authority"):
            client.tls_set(ca_certs=order["authority"])
        client.reconnect_delay_set(0.2, 0.2)
        client.on_connect = lambda _c, _u, flags, code, _p: say(
            "connected", session=flags.session_present, code=code.value
        )
        client.on_disconnect = lambda _c, _u, _f, code, _p: say("closed", code=code.value)
        client.on_message = lambda _c, _u, message: self.arrived(message)
        client.on_subscribe = lambda _c, _u, _m, codes, _p: say("subscribed", codes=[code.value for code in codes])
        client.on_unsubscribe = lambda _c, _u, _m, _r, _p: say("unsubscribed")
        client.on_publish = lambda _c, _u, number, code, _p: self.published(number, code.value)
        will = order.get("will")
        if will:
            extra = {}
            if self.version == 5:
                extra["properties"] = properties(PacketTypes.WILLMESSAGE, WillDelayInterval=will.get("delay"))
            client.will_set(will["topic"], will["payload"], will["qos"], will["retain"], **extra)
        self.client = client
        extra = {}
        if self.version == 5:
            extra["clean_start"] = mqtt.MQTT_CLEAN_START_FIRST_ONLY if order["clean"] else False
            extra["properties"] = properties(PacketTypes.CONNECT, SessionExpiryInterval=order.get("expiry"))
        client.connect(order["host"], order["port"], keepalive=30, **extra)
        client.loop_start()

    def arrived(self, message):
        facts = {}
        received = getattr(message, "properties", None)
        if received is not None:
            facts["subscriptions"] = getattr(received, "SubscriptionIdentifier", [])
            facts["user"] = dict(getattr(received, "UserProperty", []))
            facts["response_topic"] = getattr(received, "ResponseTopic", None)
            facts["correlation"] = getattr(received, "CorrelationData", b"").decode()
            facts["content_type"] = getattr(received, "ContentType", None)
        say(
            "message",
            topic=message.topic,
            payload=message.payload.decode(),
            qos=message.qos,
            retain=message.retain,
            dup=message.dup,
            **facts,
        )

    def subscribe(self, order):
        extra = {}
        if self.version == 5:
            extra["options"] = mqtt.SubscribeOptions(qos=order["qos"], noLocal=order.get("no_local", False))
            extra["properties"] = properties(PacketTypes.SUBSCRIBE, SubscriptionIdentifier=order.get("id"))
        else:
            extra["qos"] = order["qos"]
        self.client.subscribe(order["filter"], **extra)

    def unsubscribe(self, order):
        self.client.unsubscribe(order["filter"])

    def publish(self, order):
        extra = {}
        if self.version == 5:
            user = [tuple(pair) for pair in order.get("user", {}).items()] or None
            correlation = order.get("correlation")
            extra["properties"] = properties(
                PacketTypes.PUBLISH,
                UserProperty=user,
                ResponseTopic=order.get("response_topic"),
                CorrelationData=correlation.encode() if correlation is not None else None,
                ContentType=order.get("content_type"),
                MessageExpiryInterval=order.get("expiry"),
            )
        # Paho holds locks of its own here and there, so that none of ours may be held around it.
        sent = self.client.publish(order["topic"], order["payload"], order["qos"], order.get("retain", False), **extra)
        with self.lock:
            code = self.early.pop(sent.mid, None)
            if code is None:
                self.publishes[sent.mid] = order["payload"]
        if code is not None:
            say("published", payload=order["payload"], code=code)

    def published(self, number, code):
        with self.lock:
            payload = self.publishes.pop(number, None)
            if payload is None:
                self.early[number] = code
        if payload is not None:
            say("published", payload=payload, code=code)

    def disconnect(self, _order):
        self.client.disconnect()
        self.client.loop_stop()
        say("left")


agent = Agent()
for line in sys.stdin:
    order = json.loads(line)
    getattr(agent, order["do"])(order)

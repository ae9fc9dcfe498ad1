// An MQTT client on MQTT.js that does what lines of JSON on its standard input tell it, and says what happened.
//
// `paho_agent.py` understands the same lines; `agent.rs` describes them. The first argument is the folder into which
// MQTT.js was installed.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const mqtt = createRequire(process.argv[2] + "/")("mqtt");

const say = (event, facts = {}) => process.stdout.write(JSON.stringify({ event, ...facts }) + "\n");

let client;
let version;

const orders = {
  connect(order) {
    version = order.version;
    const options = {
      protocol: (order.path ? "ws" : "mqtt") + (order.authority ? "s" : ""),
      host: order.host,
      port: order.port,
      path: order.path,
      clientId: order.client,
      protocolVersion: order.version,
      clean: order.clean,
      keepalive: 30,
      reconnectPeriod: 200,
      resubscribe: false,
    };
    if (order.authority) {
      options.ca = readFileSync(order.authority);
    }
    if (version === 5) {
      options.properties = {};
      if (order.expiry !== undefined) {
        options.properties.sessionExpiryInterval = order.expiry;
      }
      if (order.aliases !== undefined) {
        options.properties.topicAliasMaximum = order.aliases;
        options.autoUseTopicAlias = true;
      }
    }
    if (order.will) {
      const { topic, payload, qos, retain, delay } = order.will;
      options.will = { topic, payload: Buffer.from(payload), qos, retain };
      if (version === 5) {
        options.will.properties = { willDelayInterval: delay ?? 0 };
      }
    }
    client = mqtt.connect(options);
    client.on("connect", (packet) => say("connected", { session: packet.sessionPresent, code: packet.reasonCode ?? packet.returnCode }));
    client.on("close", () => say("closed"));
    client.on("error", (error) => say("error", { code: error.code, text: error.message }));
    client.on("disconnect", (packet) => say("told to go", { code: packet.reasonCode }));
    client.on("message", (topic, payload, packet) => {
      const properties = packet.properties ?? {};
      const subscriptions = properties.subscriptionIdentifier ?? [];
      say("message", {
        topic,
        payload: payload.toString(),
        qos: packet.qos,
        retain: packet.retain,
        dup: packet.dup,
        subscriptions: [subscriptions].flat(),
        user: { ...properties.userProperties },
        response_topic: properties.responseTopic ?? null,
        correlation: properties.correlationData?.toString() ?? "",
        content_type: properties.contentType ?? null,
      });
    });
  },
  subscribe(order) {
    const options = { qos: order.qos };
    if (version === 5) {
      options.nl = order.no_local ?? false;
      if (order.id !== undefined) {
        options.properties = { subscriptionIdentifier: order.id };
      }
    }
    client.subscribe(order.filter, options, (error, granted) => {
      const codes = (granted ?? []).map((each) => each.qos);
      say("subscribed", { codes, error: error?.message });
    });
  },
  unsubscribe(order) {
    client.unsubscribe(order.filter, () => say("unsubscribed"));
  },
  publish(order) {
    const options = { qos: order.qos, retain: order.retain ?? false };
    if (version === 5) {
      options.properties = {};
      const names = { user: "userProperties", response_topic: "responseTopic", content_type: "contentType", expiry: "messageExpiryInterval" };
      for (const [ours, theirs] of Object.entries(names)) {
        if (order[ours] !== undefined) {
          options.properties[theirs] = order[ours];
        }
      }
      if (order.correlation !== undefined) {
        options.properties.correlationData = Buffer.from(order.correlation);
      }
    }
    client.publish(order.topic, order.payload, options, (error, packet) => {
      say("published", { payload: order.payload, code: error?.code ?? packet?.reasonCode ?? 0 });
    });
  },
  disconnect() {
    client.end(false, () => say("left"));
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const order = JSON.parse(line);
  orders[order.do](order);
}
process.exit(0);

// A client of Service Bus on Microsoft's own library that does what lines of JSON on its standard input tell it.
//
// `node azure_agent.mjs FOLDER`, where FOLDER has the library in its `node_modules`. Each order gets one line of answer.
// `azure_agent.py` understands the same orders; `mod.rs` beside it describes them.

import { createHash } from "node:crypto";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const require = createRequire(`${process.argv[2]}/`);
const { ServiceBusClient } = require("@azure/service-bus");
const Long = createRequire(require.resolve("@azure/service-bus"))("long");

// Bodies up to this size are shown; of larger ones only size and hash.
const SHOWN = 1000;

// The same bytes as in `azure_agent.py`.
const pattern = (size) => Buffer.from(Uint8Array.from({ length: size }, (_, place) => (place * 31) % 251));

function message(order) {
  const made = {
    body: order.size === undefined ? Buffer.from(order.body ?? "") : pattern(order.size),
    applicationProperties: order.properties,
    sessionId: order.session,
    messageId: order.id,
    subject: order.subject,
    contentType: order.content_type,
    correlationId: order.correlation,
    to: order.to,
    replyTo: order.reply_to,
    replyToSessionId: order.reply_to_session,
    timeToLive: order.ttl_ms,
  };
  return Object.fromEntries(Object.entries(made).filter(([, value]) => value !== undefined));
}

function told(received) {
  const body = Buffer.isBuffer(received.body) ? received.body : Buffer.from(String(received.body));
  const facts = {
    id: received.messageId ?? null,
    session: received.sessionId ?? null,
    size: body.length,
    sha256: createHash("sha256").update(body).digest("hex"),
    sequence: received.sequenceNumber?.toNumber(),
    enqueued_ms: received.enqueuedTimeUtc?.getTime(),
    expires_ms: received.expiresAtUtc?.getTime(),
    delivery_count: received.deliveryCount ?? null,
    subject: received.subject ?? null,
    content_type: received.contentType ?? null,
    correlation: received.correlationId ?? null,
    to: received.to ?? null,
    reply_to: received.replyTo ?? null,
    reply_to_session: received.replyToSessionId ?? null,
    properties: received.applicationProperties ?? {},
    dead_reason: received.deadLetterReason ?? null,
    dead_description: received.deadLetterErrorDescription ?? null,
    dead_source: received.deadLetterSource ?? null,
    state: received.state,
  };
  if (body.length <= SHOWN) facts.body = body.toString();
  return facts;
}

class Agent {
  senders = new Map();
  // By the name an order gave them: receivers, and the messages each has, by sequence number.
  receivers = new Map();
  messages = new Map();

  async connect(order) {
    // How long it waits for a session follows from this and cannot be set otherwise.
    const options = { retryOptions: { maxRetries: 0, timeoutInMs: order.timeout_ms } };
    if (order.address) options.customEndpointAddress = order.address;
    if (order.websocket) options.webSocketOptions = { webSocket: require("ws") };
    this.client = new ServiceBusClient(order.connection, options);
  }

  sender(order) {
    if (!this.senders.has(order.entity)) this.senders.set(order.entity, this.client.createSender(order.entity));
    return this.senders.get(order.entity);
  }

  async send(order) {
    const sender = this.sender(order);
    const messages = order.messages.map(message);
    if (!order.batch) {
      for (const one of messages) await sender.sendMessages(one);
      return { batches: 0 };
    }
    let batches = 0;
    let batch = await sender.createMessageBatch();
    for (const one of messages) {
      if (batch.tryAddMessage(one)) continue;
      await sender.sendMessages(batch);
      batches += 1;
      batch = await sender.createMessageBatch();
      if (!batch.tryAddMessage(one)) throw new Error("a message does not fit into a batch");
    }
    await sender.sendMessages(batch);
    return { batches: batches + 1 };
  }

  async schedule(order) {
    const at = new Date(Date.now() + order.in_ms);
    const sequences = await this.sender(order).scheduleMessages(order.messages.map(message), at);
    return { sequences: sequences.map((sequence) => sequence.toNumber()) };
  }

  async cancel(order) {
    await this.sender(order).cancelScheduledMessages(order.sequences.map((sequence) => Long.fromNumber(sequence)));
  }

  options(order) {
    const options = { maxAutoLockRenewalDurationInMs: 0, skipParsingBodyAsJson: true };
    if (order.mode === "delete") options.receiveMode = "receiveAndDelete";
    return options;
  }

  async open(order) {
    const options = this.options(order);
    if (order.dead) options.subQueueType = "deadLetter";
    this.keep(order, this.client.createReceiver(...order.entity.split("/"), options));
  }

  async accept(order) {
    const place = order.entity.split("/");
    const options = this.options(order);
    if (order.renew_ms) options.maxAutoLockRenewalDurationInMs = order.renew_ms;
    const wanted = order.session ?? null;
    const receiver =
      wanted === null
        ? await this.client.acceptNextSession(...place, options)
        : await this.client.acceptSession(...place, wanted, options);
    this.keep(order, receiver);
    return { session: receiver.sessionId, locked_until_ms: receiver.sessionLockedUntilUtc.getTime() };
  }

  keep(order, receiver) {
    this.receivers.set(order.receiver, receiver);
    this.messages.set(order.receiver, new Map());
  }

  remember(order, found) {
    const messages = this.messages.get(order.receiver);
    for (const one of found) messages.set(one.sequenceNumber.toNumber(), one);
    return { messages: found.map(told) };
  }

  async receive(order) {
    const options = { maxWaitTimeInMs: order.wait_ms };
    return this.remember(order, await this.receivers.get(order.receiver).receiveMessages(order.max, options));
  }

  async deferred(order) {
    const sequences = order.sequences.map((sequence) => Long.fromNumber(sequence));
    return this.remember(order, await this.receivers.get(order.receiver).receiveDeferredMessages(sequences));
  }

  async peek(order) {
    const options = { fromSequenceNumber: Long.fromNumber(order.from ?? 1) };
    return { messages: (await this.receivers.get(order.receiver).peekMessages(order.max, options)).map(told) };
  }

  async settle(order) {
    const receiver = this.receivers.get(order.receiver);
    const one = this.messages.get(order.receiver).get(order.sequence);
    if (order.how === "dead_letter") {
      const text = { deadLetterReason: order.reason, deadLetterErrorDescription: order.description };
      await receiver.deadLetterMessage(one, text);
    } else {
      await receiver[`${order.how}Message`](one);
    }
  }

  async renew(order) {
    const receiver = this.receivers.get(order.receiver);
    if (order.sequence === undefined) return { locked_until_ms: (await receiver.renewSessionLock()).getTime() };
    const one = this.messages.get(order.receiver).get(order.sequence);
    return { locked_until_ms: (await receiver.renewMessageLock(one)).getTime() };
  }

  async state(order) {
    const state = await this.receivers.get(order.receiver).getSessionState();
    return { state: state === null || state === undefined ? null : Buffer.from(state).toString("base64") };
  }

  async set_state(order) {
    const state = order.state === null ? null : Buffer.from(order.state, "base64");
    await this.receivers.get(order.receiver).setSessionState(state);
  }

  async close(order) {
    await this.receivers.get(order.receiver).close();
    this.receivers.delete(order.receiver);
  }

  // Takes whatever session is next, drains it and goes on, several times at once, until there is none.
  async workers(order) {
    const parts = await Promise.all(Array.from({ length: order.count }, () => this.worker(order)));
    return { visits: parts.flat() };
  }

  async worker(order) {
    const visits = [];
    for (;;) {
      let receiver;
      try {
        receiver = await this.client.acceptNextSession(...order.entity.split("/"), this.options(order));
      } catch (error) {
        if (error.code !== "ServiceTimeout") throw error;
        return visits;
      }
      const bodies = [];
      for (;;) {
        const found = await receiver.receiveMessages(order.max, { maxWaitTimeInMs: 500 });
        for (const one of found) {
          bodies.push(one.body.toString());
          await receiver.completeMessage(one);
        }
        if (found.length === 0) break;
      }
      visits.push({ session: receiver.sessionId, bodies });
      await receiver.close();
    }
  }

  async leave() {
    await this.client.close();
  }
}

const agent = new Agent();
for await (const line of createInterface({ input: process.stdin })) {
  const order = JSON.parse(line);
  let answer;
  try {
    answer = { ok: (await agent[order.do](order)) ?? {} };
  } catch (error) {
    // Whatever it is, it is the test that judges.
    answer = { error: { code: error.code ?? error.name, condition: error.condition ?? null, text: String(error.message) } };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
  if (order.do === "leave") break;
}
process.exit(0);

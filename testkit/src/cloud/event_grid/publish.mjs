// Publishes events with Microsoft's library for JavaScript as lines of JSON on its standard input order; `publishers.rs`
// beside it describes them. Each order gets one line of answer.
//
// `node publish.mjs FOLDER`, where FOLDER has the library in its `node_modules`.

import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const require = createRequire(`${process.argv[2]}/`);
const { AzureKeyCredential, EventGridPublisherClient, generateSharedAccessSignature } = require("@azure/eventgrid");
const { AzureSASCredential } = createRequire(require.resolve("@azure/eventgrid"))("@azure/core-auth");

const CORE = ["id", "source", "type", "specversion", "subject", "time", "datacontenttype", "dataschema", "data"];

// The library's form of an event: extensions apart, the time as a date. It writes specversion itself.
function event(given) {
  const made = { extensionAttributes: {} };
  for (const [name, value] of Object.entries(given)) {
    if (!CORE.includes(name)) made.extensionAttributes[name] = value;
    else if (name === "time") made.time = new Date(value);
    else if (name !== "specversion") made[name] = value;
  }
  return made;
}

function token(order) {
  return {
    async getToken(scopes) {
      if (String(scopes) !== "https://eventgrid.azure.net/.default") throw new Error(`a token for ${scopes} is asked for`);
      return { token: order.token, expiresOnTimestamp: Date.now() + 3_600_000 };
    },
  };
}

async function credential(order) {
  if (order.token !== undefined) return token(order);
  const key = new AzureKeyCredential(order.key);
  if (order.signed_until === undefined) return key;
  const until = new Date(order.signed_until * 1000);
  return new AzureSASCredential(await generateSharedAccessSignature(order.endpoint, key, until));
}

async function publish(order) {
  const schema = order.schema ?? "CloudEvent";
  const options = { retryOptions: { maxRetries: 0 }, allowInsecureConnection: true };
  const client = new EventGridPublisherClient(order.endpoint, schema, await credential(order), options);
  const events = schema === "CloudEvent" ? order.events.map(event) : order.events;
  await client.send(events, { requestOptions: { timeout: 60_000 } });
}

for await (const line of createInterface({ input: process.stdin })) {
  let answer = { ok: {} };
  try {
    await publish(JSON.parse(line));
  } catch (error) {
    const details = (error.details?.body?.error?.details ?? []).map((detail) => detail.code);
    const status = error.statusCode ?? null;
    answer = { error: { status, code: error.code ?? error.name, details, text: String(error.message) } };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}

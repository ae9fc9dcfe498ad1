// Judges CloudEvents with libraries that were not written here.
//
// `node judge.mjs FOLDER FILE`, where FOLDER has the libraries in its `node_modules`, reads a file with one event in JSON on
// each line and prints one line of JSON: how many events there are, and for each judge how many it refuses, with line
// numbers and reasons. `judge.py` asks the libraries for Python; `judge.rs` beside it puts both together.

import { createReadStream } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";

const [folder, file] = process.argv.slice(2);
const require = createRequire(`${folder}/`);
const { EventGridDeserializer } = require("@azure/eventgrid");
const { CloudEvent } = require("cloudevents");
// The JSON Schema of the specification, as that library has compiled it.
const schema = require(join(dirname(require.resolve("cloudevents")), "schema/v1.js"));

// Complaints that are told of each judge; the others are only counted.
const TOLD = 100;

const utf8 = new TextDecoder("utf-8", { fatal: true });
const deserializer = new EventGridDeserializer();
const JUDGES = {
  "json schema": (line) => {
    if (!schema(JSON.parse(line))) throw new Error(JSON.stringify(schema.errors));
  },
  // Strict, as it is by default.
  "npm cloudevents": (line) => new CloudEvent(JSON.parse(line)),
  "npm @azure/eventgrid": (line) => deserializer.deserializeCloudEvents(line),
};

const judges = Object.fromEntries(Object.keys(JUDGES).map((name) => [name, { refused: 0, complaints: [] }]));

async function judgeOne(number, bytes) {
  for (const [name, judge] of Object.entries(JUDGES)) {
    try {
      await judge(utf8.decode(bytes));
    } catch (error) {
      // Whatever a library throws is its word for no.
      judges[name].refused += 1;
      if (judges[name].complaints.length < TOLD) {
        judges[name].complaints.push([number, `${error.name}: ${error.message}`.slice(0, 500)]);
      }
    }
  }
}

// Not by `readline`, for which U+2028 ends a line too.
let events = 0;
let rest = Buffer.alloc(0);
for await (const chunk of createReadStream(file, { highWaterMark: 1 << 20 })) {
  let from = 0;
  const bytes = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
  for (let to = bytes.indexOf(10); to >= 0; to = bytes.indexOf(10, from)) {
    events += 1;
    await judgeOne(events, bytes.subarray(from, to));
    from = to + 1;
  }
  rest = bytes.subarray(from);
}
if (rest.length > 0) {
  events += 1;
  await judgeOne(events, rest);
}
process.stdout.write(`${JSON.stringify({ events, judges })}\n`);

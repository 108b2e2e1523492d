// AWS SDK for JavaScript v3 with its default provider chain, one JSON line for each line on stdin.
// stdin does not hold the process during a call: where Node would end because the SDK's promise can no longer settle,
// the answer is `unsettled` with no text, which is all that a user of such a program sees (sdk-facts §5).
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { inspect } from "node:util";
import { GetCallerIdentityCommand, STSClient } from "@aws-sdk/client-sts";

const manifest = createRequire(import.meta.url).resolve("@aws-sdk/client-sts/package.json");
const { version } = JSON.parse(readFileSync(manifest, "utf8"));

const answer = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);

// As Node prints an error that nobody catches, less the stack frames.
const told = (error) => inspect(error).replace(/\n\s+at [^\n]*?( \{)?(?=\n|$)/g, "$1");

// The credentials that signed are read off the call itself: to ask the provider again could be a request of its own.
function newClient() {
  const client = new STSClient({});
  const used = {};
  client.middlewareStack.add(
    (next, context) => (args) => {
      used.identity = context.__smithy_context?.selectedHttpAuthScheme?.identity;
      return next(args);
    },
    { step: "finalizeRequest", priority: "low", name: "whatSigned" },
  );
  return { client, used };
}

async function call({ client, used }) {
  const { Arn } = await client.send(new GetCallerIdentityCommand({}));
  const expiration = used.identity?.expiration?.toISOString() ?? null;
  return { ok: true, arn: Arn, key: used.identity?.accessKeyId ?? null, expiration };
}

async function settled(promise) {
  let ended;
  const unsettled = new Promise((resolve) => { ended = () => resolve({ ok: false, text: "", unsettled: true }); });
  process.once("beforeExit", ended);
  process.stdin.unref?.();
  try {
    return await Promise.race([promise, unsettled]);
  } catch (error) {
    return { ok: false, text: told(error) };
  } finally {
    process.off("beforeExit", ended);
    process.stdin.ref?.();
  }
}

let kept = newClient();
answer({ client: "js-v3", version });
for await (const line of createInterface({ input: process.stdin })) {
  if (line === "quit") break;
  if (line === "fresh") kept = newClient();
  const begun = performance.now();
  const result = await settled(call(kept));
  answer({ ...result, seconds: Math.round(performance.now() - begun) / 1000 });
}
process.exit(0);

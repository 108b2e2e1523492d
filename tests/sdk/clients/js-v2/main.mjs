// AWS SDK for JavaScript v2 with its default provider chain, one JSON line for each line on stdin.
// It does not know AWS_ENDPOINT_URL_STS: the endpoint of STS is SDK_STS_URL.
// stdin does not hold the process during a call: where Node would end because the SDK's promise can no longer settle,
// the answer is `unsettled` with no text, which is all that a user of such a program sees (sdk-facts §5, §10.11).
import { createInterface } from "node:readline";
import { inspect } from "node:util";
import AWS from "aws-sdk";

const answer = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);

// As Node prints an error that nobody catches, less the stack frames.
const told = (error) => inspect(error).replace(/\n\s+at [^\n]*?( \{)?(?=\n|$)/g, "$1");

// A client resolves its chain once and keeps what it found; a chain makes new providers whenever it is resolved.
const newClient = () => new AWS.STS({
  endpoint: process.env.SDK_STS_URL || undefined,
  credentialProvider: new AWS.CredentialProviderChain(),
});

async function call(client) {
  const { Arn } = await client.getCallerIdentity().promise();
  const { accessKeyId, expireTime } = client.config.credentials;
  return { ok: true, arn: Arn, key: accessKeyId, expiration: expireTime?.toISOString() ?? null };
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
answer({ client: "js-v2", version: AWS.VERSION });
for await (const line of createInterface({ input: process.stdin })) {
  if (line === "quit") break;
  if (line === "fresh") kept = newClient();
  const begun = performance.now();
  const result = await settled(call(kept));
  answer({ ...result, seconds: Math.round(performance.now() - begun) / 1000 });
}
process.exit(0);

// What the tests share: where the server is, clients that are closed when their test ends,
// and waiting for what must happen.

import assert from 'node:assert/strict';
import { createHmac, randomBytes } from 'node:crypto';
import { test } from 'node:test';
import * as Ably from 'ably';

function required(name) {
  const value = process.env[name];
  if (!value) {
    throw new Error(`${name} is not set: these tests are run by "go test ./test/sdk", which starts a server for them`);
  }
  return value;
}

export const host = required('LETSHARE_TEST_HOST');
export const port = Number(required('LETSHARE_TEST_PORT'));
export const tlsPort = Number(required('LETSHARE_TEST_TLS_PORT'));
export const key = required('LETSHARE_TEST_KEY');
export const [keyName, keySecret] = key.split(':');
export const roomTokens = [required('LETSHARE_TEST_TOKEN_1'), required('LETSHARE_TEST_TOKEN_2')];
export const httpURL = `http://${host}:${port}`;

/** The ports of the server, or of all nodes of a cluster. */
export const nodes = required('LETSHARE_TEST_NODE_PORTS').split(',').map(Number);
const tlsNodes = required('LETSHARE_TEST_NODE_TLS_PORTS').split(',').map(Number);
let turn = 0;

/**
 * What a client's options need so that all its requests reach one node: those of comet must, and
 * behind the port there may be several, each of which gets the next connection.
 */
export function affinity({ transports = [] }) {
  if (transports.length === 0 || transports.includes('web_socket')) return {};
  const i = turn++ % nodes.length;
  return { port: nodes[i], tlsPort: tlsNodes[i] };
}

/** How long to wait for what must happen; nothing waits for it when all is well. */
export const patience = 60000;

/** How many seconds a token lives that is to expire: long enough to connect with it on a busy machine. */
export const shortLife = 10;

const address = {
  endpoint: host, port, tls: false, logLevel: 0,
  // The SDK's own are 4 to 15 s, which is not enough on a busy machine.
  realtimeRequestTimeout: patience, httpRequestTimeout: patience, httpMaxRetryDuration: patience,
  webSocketConnectTimeout: patience, webSocketSlowTimeout: patience,
};

/** Declares the test once for JSON and once for MessagePack. */
export function inBothFormats(name, run) {
  for (const [format, useBinaryProtocol] of [['JSON', false], ['MessagePack', true]]) {
    inFormat(`${name} (${format})`, useBinaryProtocol, run);
  }
}

/** Declares the test for one format. */
export function inFormat(name, useBinaryProtocol, run) {
  test(name, { timeout: 4 * patience }, async (t) => {
    const open = [];
    const kit = {
      format: useBinaryProtocol ? 'MessagePack' : 'JSON',
      binary: useBinaryProtocol,
      realtime: (options = {}) => {
        const credentials = ['token', 'authCallback', 'tokenDetails'].some((k) => k in options) ? {} : { key };
        const client = new Ably.Realtime({ ...address, ...credentials, useBinaryProtocol, ...options, ...affinity(options) });
        open.push(client);
        return client;
      },
      rest: (options = {}) => {
        const credentials = ['token', 'authCallback', 'tokenDetails'].some((k) => k in options) ? {} : { key };
        return new Ably.Rest({ ...address, ...credentials, useBinaryProtocol, ...options });
      },
      /** A client that is connected. */
      connected: async (options = {}) => {
        const client = kit.realtime(options);
        await reaches(client.connection, 'connected');
        return client;
      },
    };
    try {
      await run(kit, t);
    } finally {
      for (const client of open) client.close();
    }
  });
}

/** A channel's name that no other test uses. */
export function unique(name) {
  return `${name}-${randomBytes(6).toString('hex')}`;
}

/** Rejects after patience if the promise has not settled by then. */
export async function soon(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`still waiting for ${what}`)), patience);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Waits until a connection or channel has a state, and returns the change that led to it. */
export function reaches(emitter, state) {
  if (emitter.state === state) return Promise.resolve({ current: state, reason: emitter.errorReason });
  return soon(
    new Promise((resolve, reject) => {
      emitter.on((change) => {
        if (change.current === state) resolve(change);
        else if (change.current === 'failed') {
          reject(new Error(`failed instead of ${state}: ${change.reason}`));
        }
      });
    }),
    `state ${state}, now ${emitter.state}`,
  );
}

/** Collects the messages of a subscription; next() waits for one. */
export function inbox() {
  const messages = [];
  let wake = () => {};
  const listener = (message) => {
    messages.push(message);
    wake();
  };
  return {
    listener,
    messages,
    async count(n) {
      await soon(
        (async () => {
          while (messages.length < n) await new Promise((resolve) => (wake = resolve));
        })(),
        `${n} messages, got ${messages.length}`,
      );
      return messages;
    },
  };
}

/** Subscribes and waits until attached. */
export async function subscribed(channel, ...name) {
  const box = inbox();
  await soon(channel.subscribe(...name, box.listener), `attach of ${channel.name}`);
  return box;
}

/** Checks that something fails with this error of the server's. */
export async function failsWith(promise, code, statusCode) {
  let result;
  try {
    result = await soon(promise, `error ${code}`);
  } catch (err) {
    assert.equal(err.code, code, `${err}`);
    if (statusCode !== undefined) assert.equal(err.statusCode, statusCode, `${err}`);
    return err;
  }
  assert.fail(`no error ${code}, but ${JSON.stringify(result)}`);
}

const base64url = (value) => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url');

/** Mints an Ably JWT. ttl is in seconds. */
export function jwt({ ttl = 600, clientId, capability, revocationKey, name = keyName, secret = keySecret, issued, claims: more } = {}) {
  const now = issued ?? Math.floor(Date.now() / 1000);
  const claims = { iat: now, exp: now + ttl, ...more };
  if (revocationKey !== undefined) claims['x-ably-revocation-key'] = revocationKey;
  if (clientId !== undefined) claims['x-ably-clientId'] = clientId;
  if (capability !== undefined) claims['x-ably-capability'] = JSON.stringify(capability);
  const text = `${base64url({ alg: 'HS256', typ: 'JWT', kid: name })}.${base64url(claims)}`;
  return `${text}.${createHmac('sha256', secret).update(text).digest('base64url')}`;
}

// A browser, on pages of other origins: what nothing but a browser enforces. It is Chromium;
// the SDK is the build for browsers of the package that the other tests use.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import http from 'node:http';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { chromium } from 'playwright-core';
import { affinity, host, httpURL, inBothFormats, inFormat, jwt, key, patience, port, roomTokens, soon, subscribed, unique } from './helpers.mjs';

// Both lead to the server of the pages. The first is among the origins that LetShare's door
// allows in local mode, the second is not.
const known = 'http://localhost:3000';
const stranger = 'http://stranger.example:3000';

let browser, pages;

before(async () => {
  const sdk = await readFile(new URL('node_modules/ably/build/ably.min.js', import.meta.url));
  pages = http.createServer((request, response) => {
    const { pathname } = new URL(request.url, known);
    const answer = (type, body) => response.writeHead(200, { 'content-type': type }).end(body);
    if (pathname === '/') answer('text/html', '<!doctype html><title>page</title><script src="/ably.js"></script>');
    else if (pathname === '/ably.js') answer('text/javascript', sdk);
    else if (pathname === '/jwt') answer('application/jwt', jwt({ clientId: 'guest', ttl: 60 }));
    else response.writeHead(404).end();
  });
  await new Promise((resolve) => pages.listen(0, '127.0.0.1', resolve));
  browser = await chromium.launch({
    executablePath: executable(),
    timeout: 4 * patience,
    args: [
      // Some machines have no room in /dev/shm, and none here needs a GPU.
      '--disable-dev-shm-usage', '--disable-gpu',
      `--host-resolver-rules=MAP *:3000 127.0.0.1:${pages.address().port}`,
    ],
  });
});

after(async () => {
  await browser?.close();
  pages?.close();
});

function executable() {
  if (process.env.CHROMIUM) return process.env.CHROMIUM;
  const found = process.env.PATH.split(path.delimiter).map((dir) => path.join(dir, 'chromium')).find((file) => existsSync(file));
  if (!found) throw new Error('chromium is missing: install it ("make deps" does as root on Debian), or set CHROMIUM to the path of another Chromium');
  return found;
}

/** Runs a test with a page of an origin. Nothing that the page asks for may fail by the rules of browsers. */
async function onPage(origin, run) {
  const context = await browser.newContext();
  try {
    context.setDefaultTimeout(patience);
    const page = await context.newPage();
    const trouble = [];
    page.on('pageerror', (err) => trouble.push(`${err}`));
    page.on('console', (message) => /CORS|Content Security|Mixed Content/.test(message.text()) && trouble.push(message.text()));
    await page.goto(origin);
    await page.evaluate(() => {
      window.deadline = (promise, what) =>
        Promise.race([promise, new Promise((_, reject) => setTimeout(() => reject(new Error(`still waiting for ${what}`)), 60000))]);
      window.connect = async (options) => {
        const client = new Ably.Realtime({ tls: false, logLevel: 0, ...options });
        await window.deadline(client.connection.whenState('connected'), 'connected');
        return client;
      };
      window.refusal = async (promise) => {
        try {
          return { result: await promise };
        } catch (err) {
          return { code: err.code, statusCode: err.statusCode, message: err.message };
        }
      };
    });
    await run(page);
    assert.deepEqual(trouble, []);
  } finally {
    await context.close();
  }
}

const ways = {
  'WebSocket, JSON': { transports: ['web_socket'], useBinaryProtocol: false },
  'WebSocket, MessagePack': { transports: ['web_socket'], useBinaryProtocol: true },
  'comet': { transports: ['xhr_polling'] },
};

for (const [way, options] of Object.entries(ways)) {
  inFormat(`browser: messages, presence and history of another origin (${way})`, true, async ({ connected }) => {
    const name = unique('browser');
    const other = (await connected({ clientId: 'other' })).channels.get(name);
    const received = await subscribed(other);
    await onPage(known, async (page) => {
      const transport = await page.evaluate(async ({ options, name }) => {
        const client = await connect({ ...options, clientId: 'page' });
        window.channel = client.channels.get(name);
        window.received = [];
        await deadline(channel.subscribe((message) => window.received.push(message)), 'attached');
        await deadline(channel.presence.enter({ at: 'desk' }), 'entered');
        for (const data of ['text äöü 🙂', { a: [1, null] }, new Uint8Array([0, 1, 255]).buffer]) {
          await deadline(channel.publish('n', data), 'published');
        }
        return client.connection.connectionManager.activeProtocol.transport.shortName;
      }, { options: { endpoint: host, port, key, ...options, ...affinity(options) }, name });
      assert.equal(transport, options.transports[0]);

      const values = ['text äöü 🙂', { a: [1, null] }, Buffer.from([0, 1, 255])];
      const got = await received.count(3);
      assert.deepEqual(got.map((m) => m.data), values);
      const members = await soon(other.presence.get({ waitForSync: true }), 'members');
      assert.deepEqual(members.map((m) => [m.clientId, m.data]), [['page', { at: 'desk' }]]);

      await soon(other.publish('n', Buffer.from([7])), 'a publish');
      await page.waitForFunction(() => window.received.length === 4);
      const seen = await page.evaluate(async () => {
        const plain = ({ data }) => (data instanceof ArrayBuffer ? [...new Uint8Array(data)] : data);
        const history = [];
        let answer = await deadline(channel.history({ direction: 'forwards', limit: 3 }), 'history');
        for (; answer; answer = await deadline(answer.next(), 'the next page')) history.push(...answer.items);
        const members = await deadline(channel.presence.get(), 'members');
        return { live: window.received.map(plain), history: history.map(plain), members: members.map((m) => m.clientId) };
      });
      const wanted = [values[0], values[1], [0, 1, 255], [7]];
      assert.deepEqual(seen, { live: wanted, history: wanted, members: ['page'] });
    });
  });
}

inFormat('browser: a page that is left takes its members with it', true, async ({ connected }) => {
  const name = unique('left');
  const channel = (await connected()).channels.get(name);
  const left = new Promise((resolve) => channel.presence.subscribe('leave', resolve));
  await soon(channel.attach(), 'attached');
  await onPage(known, async (page) => {
    await page.evaluate(async ({ options, name }) => {
      const client = await connect(options);
      await deadline(client.channels.get(name).presence.enter(), 'entered');
    }, { options: { endpoint: host, port, key, clientId: 'page', transportParams: { remainPresentFor: 60000 } }, name });
    await page.goto('about:blank');
    assert.equal((await soon(left, 'the member to leave')).clientId, 'page');
  });
});

inBothFormats('browser: REST', async ({ binary }) => {
  const name = unique('rest');
  await onPage(known, async (page) => {
    const got = await page.evaluate(async ({ options, denied, name }) => {
      const rest = new Ably.Rest(options);
      const channel = rest.channels.get(name);
      await channel.publish([{ name: 'a', data: '1' }, { name: 'b', data: '2' }, { name: 'c', data: '3' }]);
      const names = [];
      for (let page = await channel.history({ limit: 2, direction: 'forwards' }); page; page = await page.next()) {
        names.push(page.items.map((m) => m.name));
      }
      const status = await channel.status();
      const request = await rest.request('delete', '/time', 3);
      return {
        names,
        status: status.channelId,
        request: [request.statusCode, request.errorCode],
        refused: await refusal(channel.publish('n', 'x'.repeat(65537))),
        denied: await refusal(new Ably.Rest({ ...options, ...denied }).channels.get(name).publish('n', '')),
        token: (await rest.auth.requestToken({ clientId: 'x' })).clientId,
      };
    }, {
      options: { endpoint: host, port, tls: false, logLevel: 0, key, useBinaryProtocol: binary, maxMessageSize: 1 << 20 },
      denied: { key: undefined, token: jwt({ capability: { elsewhere: ['*'] } }) },
      name,
    });
    assert.deepEqual(got.names, [['a', 'b'], ['c']]);
    assert.equal(got.status, name);
    assert.deepEqual(got.request, [405, 40500]);
    assert.deepEqual([got.refused.code, got.refused.statusCode], [40009, 413]);
    assert.deepEqual([got.denied.code, got.denied.statusCode], [40160, 401]);
    assert.equal(got.token, 'x');
  });
});

// RSC7d2
test('browser: fetch may send the headers of a request and read those of an answer', { timeout: 4 * patience }, async () => {
  const name = unique('fetch');
  await onPage(known, async (page) => {
    const got = await page.evaluate(async ({ url, authorization }) => {
      const headers = { authorization, 'x-ably-version': '6', 'ably-agent': 'page/1', accept: 'application/json' };
      const send = (path, more) => fetch(url + path, { credentials: 'include', ...more, headers: { ...headers, ...more?.headers } });
      const body = JSON.stringify([{ name: 'a' }, { name: 'b' }]);
      const posted = await send('/messages', { method: 'POST', body, headers: { 'content-type': 'application/json' } });
      const read = await send('/messages?limit=1');
      const refused = await send('/messages?limit=0');
      return {
        posted: [posted.status, posted.headers.get('content-type')],
        link: read.headers.get('link'),
        refused: [refused.status, refused.headers.get('x-ably-errorcode'), (await refused.json()).error.message === refused.headers.get('x-ably-errormessage')],
      };
    }, { url: `${httpURL}/channels/${name}`, authorization: `Basic ${btoa(key)}` });
    assert.deepEqual(got.posted, [201, 'application/json']);
    assert.match(got.link, /rel="next"/);
    assert.deepEqual(got.refused, [400, '40003', true]);
  });
});

inFormat('browser: a page gets its token from where it came from, and another when it asks', true, async () => {
  await onPage(known, async (page) => {
    const got = await page.evaluate(async (options) => {
      const client = await connect(options);
      const updated = new Promise((resolve) => client.connection.once('update', resolve));
      const before = client.auth.clientId;
      await deadline(client.auth.authorize(), 'authorized');
      const change = await deadline(updated, 'an update');
      return { before, after: client.auth.clientId, state: change.current, reason: change.reason };
    }, { endpoint: host, port, authUrl: '/jwt' });
    assert.deepEqual([got.before, got.after, got.state], ['guest', 'guest', 'connected']);
    assert.equal(got.reason ?? null, null);
  });
});

test("browser: LetShare's door opens to the origins that it knows", { timeout: 4 * patience }, async () => {
  const visit = (page) =>
    page.evaluate(({ url, room }) => {
      const socket = new WebSocket(url);
      return deadline(
        new Promise((resolve) => {
          socket.onopen = () => socket.send(JSON.stringify({ type: 'subscribe', channel: room, event: 'signal:all' }));
          socket.onmessage = (event) => resolve(JSON.parse(event.data).type);
          socket.onerror = () => resolve('refused');
        }),
        'an answer',
      );
    }, { url: `ws://${host}:${port}/ws?token=${roomTokens[0]}&userId=anna`, room: unique('r').slice(0, 12) });
  await onPage(known, async (page) => assert.equal(await visit(page), 'subscribed'));
  await onPage(stranger, async (page) => assert.equal(await visit(page), 'refused'));
});

inFormat('browser: EventSource reads a stream, of any origin', true, async ({ connected }) => {
  const names = [unique('events'), unique('events')];
  const client = await connected({ clientId: 'sender' });
  await onPage(stranger, async (page) => {
    const listening = await page.evaluate(async (url) => {
      window.events = [];
      const source = new EventSource(url);
      for (const type of ['message', 'presence']) {
        source.addEventListener(type, (event) => window.events.push([type, event.lastEventId !== '', JSON.parse(event.data)]));
      }
      await deadline(new Promise((resolve, reject) => Object.assign(source, { onopen: resolve, onerror: reject })), 'an open stream');
      return source.readyState === EventSource.OPEN;
    }, `${httpURL}/sse?${new URLSearchParams({ v: '1.2', channels: names.join(), accessToken: jwt() })}`);
    assert.ok(listening);
    await soon(client.channels.get(names[0]).publish('greeting', { to: 'all' }), 'a publish');
    await soon(client.channels.get(names[1]).presence.enter('here'), 'entering');
    await page.waitForFunction(() => window.events.length === 2);
    const events = await page.evaluate(() => window.events);
    assert.deepEqual(events.map(([type, id, data]) => [type, id, data.channel, data.clientId]),
      [['message', true, names[0], 'sender'], ['presence', true, names[1], 'sender']]);
  });
});

test('browser: EventSource does not come back when it is refused', { timeout: 4 * patience }, async () => {
  await onPage(stranger, async (page) => {
    const state = await page.evaluate(async (url) => {
      const source = new EventSource(url);
      await deadline(new Promise((resolve) => (source.onerror = resolve)), 'an error');
      return source.readyState;
    }, `${httpURL}/sse?${new URLSearchParams({ v: '1.2', channels: 'a', accessToken: jwt({ secret: 'wrong' }) })}`);
    assert.equal(state, 2);
  });
});

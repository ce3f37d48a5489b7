// The comet transport: an SDK that cannot use WebSockets, streaming as in Node and polling as
// in browsers.

import assert from 'node:assert/strict';
import { failsWith, inbox, inFormat, jwt, reaches, shortLife, soon, subscribed, unique } from './helpers.mjs';

/** Declares the test once streaming and once polling; its clients use comet, unless they say otherwise. */
function inBothWays(name, run) {
  for (const [way, stream] of [['streaming', true], ['polling', false]]) {
    // Comet is JSON, whatever the format that is asked for; MessagePack is the SDK's default.
    inFormat(`comet: ${name} (${way})`, true, async (kit) => {
      const options = { transports: ['comet'], disconnectedRetryTimeout: 50, transportParams: stream ? {} : { stream: false } };
      await run({
        stream,
        connected: async (more = {}) => {
          const client = await kit.connected({ ...options, ...more });
          if (!more.transports) assert.equal(transport(client).shortName, 'comet');
          return client;
        },
      });
    });
  }
}

const transport = (client) => client.connection.connectionManager.activeProtocol.transport;

/** Takes the client the answer that it waits for, as a network does. */
async function cut(client) {
  const lost = reaches(client.connection, 'disconnected');
  const { recvRequest } = transport(client);
  (recvRequest.res ?? recvRequest.req).destroy(new Error('cut'));
  await lost;
}

inBothWays('messages go both ways, also to and from WebSockets', async ({ connected, stream }) => {
  const name = unique('comet');
  const one = (await connected()).channels.get(name);
  const two = (await connected({ transports: ['web_socket'] })).channels.get(name);
  const boxes = [await subscribed(one), await subscribed(two)];
  assert.equal(transport(one.client).stream, stream);
  const values = ['text äöü 🙂 \n', { a: [1, null] }, Buffer.from([0, 1, 255]), 'x'.repeat(60000)];
  const results = [];
  for (const [i, data] of values.entries()) results.push(await soon([one, two][i % 2].publish('n', data), 'a publish'));
  for (const box of boxes) {
    const got = await box.count(values.length);
    assert.deepEqual(got.map((m) => m.data), values);
    assert.deepEqual(got.map((m) => m.serial), results.map((r) => r.serials[0]));
  }
});

inBothWays('two hundred messages that are published at once arrive in order', async ({ connected }) => {
  const name = unique('comet');
  const box = await subscribed((await connected()).channels.get(name));
  const publisher = (await connected()).channels.get(name);
  const wanted = Array.from({ length: 200 }, (_, i) => `${i}`);
  const results = await soon(Promise.all(wanted.map((data) => publisher.publish('n', data))), 'all publishes');
  const got = await box.count(200);
  assert.deepEqual(got.map((m) => m.data), wanted);
  assert.deepEqual(got.map((m) => m.serial), results.map((r) => r.serials[0]));
});

inBothWays('more than one frame may hold is published at once', async ({ connected }) => {
  const name = unique('comet');
  const box = await subscribed((await connected()).channels.get(name));
  const publisher = (await connected()).channels.get(name);
  const published = Array.from({ length: 30 }, (_, i) => publisher.publish(`${i}`, 'x'.repeat(60000)));
  await soon(Promise.all(published), 'all publishes');
  assert.deepEqual((await box.count(30)).map((m) => m.name), Array.from({ length: 30 }, (_, i) => `${i}`));
});

inBothWays('presence is told to all, and members leave with their connection', async ({ connected }) => {
  const name = unique('comet');
  const watcher = (await connected()).channels.get(name);
  const box = inbox();
  await soon(watcher.presence.subscribe(box.listener), 'attach');
  const client = await connected({ clientId: 'anna' });
  const channel = client.channels.get(name);
  await soon(channel.presence.enter('a'), 'enter');
  await soon(channel.presence.update('b'), 'update');
  await box.count(2);
  assert.deepEqual((await soon(watcher.presence.get(), 'members')).map((m) => [m.clientId, m.data]), [['anna', 'b']]);
  client.close();
  assert.deepEqual((await box.count(3)).map((m) => [m.action, m.data]), [['enter', 'a'], ['update', 'b'], ['leave', 'b']]);
});

inBothWays('a client whose answers are cut keeps its connection and misses nothing', async ({ connected }) => {
  const name = unique('comet');
  const publisher = (await connected()).channels.get(name);
  const client = await connected();
  const { id, key } = client.connection;
  const received = inbox();
  await soon(client.channels.get(name).subscribe(received.listener), 'attach');
  for (let i = 0; i < 12; i++) {
    if (i % 4 === 2) await cut(client);
    await soon(publisher.publish('n', String(i)), 'a publish');
    if (i % 4 === 3) await reaches(client.connection, 'connected');
  }
  await received.count(12);
  assert.deepEqual(received.messages.map((m) => m.data), Array.from({ length: 12 }, (_, i) => String(i)));
  assert.equal(client.connection.id, id);
  assert.notEqual(client.connection.key, key);
});

inBothWays('a connection is recovered over a WebSocket', async ({ connected }) => {
  const name = unique('comet');
  const publisher = (await connected()).channels.get(name);
  const client = await connected();
  const before = inbox();
  await soon(client.channels.get(name).subscribe(before.listener), 'attach');
  await soon(publisher.publish('n', 'before'), 'a publish');
  await before.count(1);
  const recover = client.connection.createRecoveryKey();
  await soon(publisher.publish('n', 'between'), 'a publish');
  const lost = reaches(client.connection, 'disconnected');
  const heir = await connected({ recover, transports: ['web_socket'] });
  assert.equal(heir.connection.id, JSON.parse(recover).connectionKey.split('!')[0]);
  const after = inbox();
  await soon(heir.channels.get(name).subscribe(after.listener), 'attach');
  await soon(publisher.publish('n', 'after'), 'a publish');
  assert.deepEqual((await after.count(2)).map((m) => m.data), ['between', 'after']);
  await lost;
  await reaches(client.connection, 'connected');
  assert.notEqual(client.connection.id, heir.connection.id);
});

inBothWays('tokens are renewed in place, and used for what follows', async ({ connected }) => {
  const name = unique('comet');
  const client = await connected({ authCallback: (_, callback) => callback(null, jwt({ capability: { '*': ['subscribe'] } })) });
  const { id } = client.connection;
  const channel = client.channels.get(name);
  const box = await subscribed(channel);
  await failsWith(channel.publish('n', 'x'), 40160, 401);
  await soon(client.auth.authorize(null, { authCallback: (_, callback) => callback(null, jwt({ ttl: 500 })) }), 'authorize');
  assert.equal(client.connection.id, id);
  await soon(channel.publish('n', 'y'), 'a publish');
  assert.deepEqual((await box.count(1)).map((m) => m.data), ['y']);
});

inBothWays('a token that expires is renewed and the connection resumed', async ({ connected }) => {
  const tokens = [];
  const client = await connected({
    authCallback: (_, callback) => {
      tokens.push(jwt({ ttl: tokens.length === 0 ? shortLife : 600 }));
      callback(null, tokens.at(-1));
    },
  });
  const { id } = client.connection;
  const lost = await reaches(client.connection, 'disconnected');
  assert.equal(lost.reason.code, 40142);
  await reaches(client.connection, 'connected');
  assert.equal(client.connection.id, id);
  assert.equal(tokens.length, 2);
});

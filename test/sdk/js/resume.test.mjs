// Losing the transport: resume, recover, and what was missed.

import assert from 'node:assert/strict';
import { inbox, inBothFormats, reaches, unique } from './helpers.mjs';

/** Takes the client its socket, as a network does. */
async function cut(client) {
  const lost = reaches(client.connection, 'disconnected');
  client.connection.connectionManager.disconnectAllTransports();
  await lost;
}

// RTN15c6, RTL2f
inBothFormats('a client whose transport is cut keeps its connection and misses nothing', async ({ connected }) => {
  const name = unique('cut');
  const publisher = (await connected()).channels.get(name);
  const client = await connected({ disconnectedRetryTimeout: 50 });
  const { id, key } = client.connection;
  const received = inbox();
  const channel = client.channels.get(name);
  await channel.subscribe(received.listener);
  for (let i = 0; i < 12; i++) {
    if (i % 4 === 2) await cut(client);
    await publisher.publish('n', String(i));
    if (i % 4 === 3) await reaches(client.connection, 'connected');
  }
  await received.count(12);
  assert.deepEqual(received.messages.map((m) => m.data), Array.from({ length: 12 }, (_, i) => String(i)));
  assert.equal(client.connection.id, id);
  assert.notEqual(client.connection.key, key);
  assert.equal(client.connection.errorReason, null);
});

// RTN19a
inBothFormats('what a client published while it was cut arrives once', async ({ connected }) => {
  const name = unique('queued');
  const received = inbox();
  await (await connected()).channels.get(name).subscribe(received.listener);
  const client = await connected({ disconnectedRetryTimeout: 50 });
  const channel = client.channels.get(name);
  const published = [];
  for (let i = 0; i < 20; i++) {
    published.push(channel.publish('n', String(i)));
    if (i === 7) await cut(client);
  }
  const results = await Promise.all(published);
  await received.count(20);
  assert.deepEqual(received.messages.map((m) => m.data), Array.from({ length: 20 }, (_, i) => String(i)));
  assert.deepEqual(received.messages.map((m) => m.serial), results.map((r) => r.serials[0]));
});

// RTN16d, RTN16k
inBothFormats('another client recovers a connection and its channels', async ({ connected }) => {
  const name = unique('recover');
  const publisher = (await connected()).channels.get(name);
  const client = await connected({ disconnectedRetryTimeout: 50 });
  const before = inbox();
  await client.channels.get(name).subscribe(before.listener);
  await publisher.publish('n', 'before');
  await before.count(1);
  const recoveryKey = client.connection.createRecoveryKey();
  await publisher.publish('n', 'between');

  const lost = reaches(client.connection, 'disconnected');
  const heir = await connected({ recover: recoveryKey });
  await lost;
  await reaches(client.connection, 'connected');
  assert.equal(heir.connection.id, JSON.parse(recoveryKey).connectionKey.split('!')[0]);
  assert.equal(heir.connection.errorReason, null);
  const after = inbox();
  await heir.channels.get(name).subscribe(after.listener);
  await publisher.publish('n', 'after');
  await after.count(2);
  assert.deepEqual(after.messages.map((m) => m.data), ['between', 'after']);
  assert.notEqual(client.connection.id, heir.connection.id, 'the client that was left behind took the connection back');
});

// RTN15c7
inBothFormats('a key that nobody knows gives a new connection that says so', async ({ connected }) => {
  const client = await connected({
    recover: JSON.stringify({ connectionKey: '_____!nonsense____', msgSerial: 0, channelSerials: {} }),
  });
  assert.equal(client.connection.errorReason.code, 80018);
});

// TB2c
inBothFormats('a rewind brings the last messages', async ({ connected }) => {
  const name = unique('rewind');
  const publisher = (await connected()).channels.get(name);
  for (let i = 0; i < 5; i++) await publisher.publish('n', String(i));
  const client = await connected();
  for (const [rewind, want] of [['2', ['3', '4']], ['2m', ['0', '1', '2', '3', '4']]]) {
    const received = inbox();
    const channel = client.channels.get(name, { params: { rewind } });
    const attached = new Promise((resolve) => channel.once('attached', resolve));
    await channel.subscribe(received.listener);
    assert.equal((await attached).hasBacklog, true);
    await received.count(want.length);
    assert.deepEqual(received.messages.map((m) => m.data), want);
    await channel.detach();
    client.channels.release(name);
  }
});

// Connecting, staying connected and closing.

import assert from 'node:assert/strict';
import { failsWith, inBothFormats, patience, reaches, soon, subscribed, unique } from './helpers.mjs';

// RTN6, RTN8b, RTN9b
inBothFormats('a client connects with a key and learns its limits', async ({ connected }) => {
  const client = await connected();
  assert.match(client.connection.id, /^[A-Za-z0-9_-]{8,16}$/);
  assert.ok(client.connection.key.startsWith(client.connection.id));
  const details = client.connection.connectionManager.connectionDetails;
  assert.equal(details.clientId, '*');
  assert.equal(details.connectionKey, client.connection.key);
  assert.equal(details.maxMessageSize, 65536);
  assert.equal(details.maxFrameSize, 524288);
  assert.equal(details.maxIdleInterval, 15000);
  assert.equal(details.connectionStateTtl, 120000);
  for (const name of ['serverId', 'siteCode']) assert.equal(typeof details[name], 'string', name);
});

inBothFormats('a client that names itself is that client', async ({ connected }) => {
  const client = await connected({ clientId: 'Alice äöü 测试' });
  assert.equal(client.auth.clientId, 'Alice äöü 测试');
});

// RTN13a
inBothFormats('a ping is answered', async ({ connected }) => {
  const client = await connected();
  for (let i = 0; i < 3; i++) {
    const milliseconds = await soon(client.connection.ping(), 'the answer to a ping');
    assert.ok(milliseconds > 0 && milliseconds < patience, `${milliseconds} ms`);
  }
});

// RTN12a
inBothFormats('close ends the connection, and connect begins a new one', async ({ connected }) => {
  const client = await connected();
  const first = client.connection.id;
  client.close();
  await reaches(client.connection, 'closed');
  assert.equal(client.connection.errorReason.code, 80017); // the SDK's own word for closed
  client.connect();
  await reaches(client.connection, 'connected');
  assert.notEqual(client.connection.id, first);
});

// RTN15c7
inBothFormats('a key of a resume that the server does not know gives a new connection', async ({ connected }) => {
  const client = await connected({ recover: JSON.stringify({ connectionKey: '_____!not_a_key____', msgSerial: 3, channelSerials: {} }) });
  assert.equal(client.connection.errorReason.code, 80018);
  assert.equal(client.connection.errorReason.statusCode, 400);
  await soon(client.channels.get(unique('recovered')).publish('a', 'b'), 'a publish');
});

inBothFormats('a client whose transport breaks connects again', async ({ connected }) => {
  const client = await connected();
  const channel = client.channels.get(unique('broken'));
  const box = await subscribed(channel);
  const connectedAgain = new Promise((resolve) => client.connection.once('connected', resolve));
  client.connection.connectionManager.activeProtocol.getTransport().wsConnection.terminate();
  await soon(connectedAgain, 'the new transport');
  await soon(channel.publish('after', 'x'), 'a publish');
  assert.equal((await box.count(1))[0].name, 'after');
});

inBothFormats('many clients share a channel', async ({ connected }) => {
  const name = unique('many');
  const clients = await Promise.all(Array.from({ length: 12 }, () => connected()));
  const boxes = await Promise.all(clients.map((c) => subscribed(c.channels.get(name))));
  await Promise.all(clients.map((c, i) => soon(c.channels.get(name).publish('hello', i.toString()), 'a publish')));
  const orders = await Promise.all(boxes.map(async (b) => (await b.count(12)).map((m) => m.serial)));
  for (const order of orders) {
    assert.deepEqual(order, orders[0], 'all see one order');
    assert.deepEqual(order, [...order].sort(), 'serials grow');
  }
});

inBothFormats('a channel that cannot be does not disturb the connection', async ({ connected }) => {
  const client = await connected();
  for (const name of ['', ':hell', '::', 'two\nlines', '[unknown]x']) {
    const channel = client.channels.get(name);
    await failsWith(channel.attach(), 40010, 400);
    assert.equal(channel.state, 'failed', JSON.stringify(name));
  }
  assert.equal(client.connection.state, 'connected');
  const good = client.channels.get(unique('good'));
  await soon(good.attach(), 'attach');
});

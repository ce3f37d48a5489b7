// How many are on a channel, as events and by request; and filtered channels.

import assert from 'node:assert/strict';
import { httpURL, inBothFormats, inbox, reaches, soon, subscribed, unique } from './helpers.mjs';

const nobody = {
  connections: 0, publishers: 0, subscribers: 0, presenceConnections: 0,
  presenceMembers: 0, presenceSubscribers: 0, objectPublishers: 0, objectSubscribers: 0,
};

inBothFormats('a channel with the option occupancy is told of it', async ({ connected, rest }) => {
  const [one, two] = [await connected(), await connected()];
  const name = unique('occupancy');
  const channel = one.channels.get(name, { params: { occupancy: 'metrics' } });
  // Listeners first, since the first event comes right behind the attachment.
  const events = inbox();
  channel.subscribe('[meta]occupancy', events.listener);
  await reaches(channel, 'attached');
  assert.equal(channel.params.occupancy, 'metrics');
  const alone = { ...nobody, connections: 1, publishers: 1, subscribers: 1, presenceConnections: 1, presenceSubscribers: 1 };
  const [first] = await events.count(1);
  assert.deepEqual(first.data, { metrics: alone });
  assert.equal(first.action, 'meta');
  assert.ok(first.id && first.timestamp && !first.clientId && !first.connectionId);
  const serial = channel.properties.channelSerial;
  assert.ok(serial);

  const other = two.channels.get(name);
  await soon(other.presence.enterClient('bob', 'here'), 'enter');
  const both = { ...nobody, connections: 2, publishers: 2, subscribers: 2, presenceConnections: 2, presenceMembers: 1, presenceSubscribers: 2 };
  const last = (await events.count(2)).at(-1);
  assert.deepEqual(last.data, { metrics: both });

  const details = await soon(rest().channels.get(name).status(), 'status');
  assert.equal(details.channelId, name);
  assert.equal(details.status.isActive, true);
  assert.deepEqual(details.status.occupancy.metrics, both);

  await soon(other.detach(), 'detach');
  while (events.messages.at(-1).data.metrics.connections !== 1) await events.count(events.messages.length + 1);
  assert.deepEqual(events.messages.at(-1).data, { metrics: alone });

  // What is sent after an event goes on from where the channel was.
  await soon(channel.publish('n', 'x'), 'publish');
  const history = await soon(channel.history(), 'history');
  assert.deepEqual(history.items.map((m) => m.data), ['x']);
});

inBothFormats('a channel may be told of one metric only', async ({ connected }) => {
  const client = await connected();
  const channel = client.channels.get(unique('occupancy'), { params: { occupancy: 'metrics.presenceMembers' } });
  const events = inbox();
  channel.subscribe('[meta]occupancy', events.listener);
  await soon(channel.presence.enterClient('bob'), 'enter');
  const all = await events.count(2);
  assert.deepEqual(all.map((m) => m.data.metrics), [{ presenceMembers: 0 }, { presenceMembers: 1 }]);
});

inBothFormats('a filtered channel delivers what passes', async ({ realtime, rest }) => {
  const response = await fetch(`${httpURL}/apps`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ keys: [{ capability: JSON.stringify({ '[*]*': ['*'] }) }] }),
  });
  const app = await response.json();
  const options = { key: app.keys[0].keyStr };
  const client = realtime(options);
  await reaches(client.connection, 'connected');
  const name = unique('filtered');
  const passed = await subscribed(client.channels.getDerived(name, { filter: 'name == `"price"` && headers.cost < `30`' }));
  const all = await subscribed(client.channels.get(name));
  const message = (data, n, cost) => ({ name: n, data, extras: { headers: { cost } } });
  await soon(rest(options).channels.get(name).publish([message('1', 'price', 35), message('2', 'price', 25), message('3', 'news', 1), message('4', 'price', 0)]), 'publish');
  await soon(client.channels.get(name).publish('price', 'without headers'), 'publish');
  await soon(client.channels.get(name).publish(message('5', 'price', 29)), 'publish');
  assert.deepEqual((await all.count(6)).map((m) => m.data), ['1', '2', '3', '4', 'without headers', '5']);
  assert.deepEqual((await passed.count(3)).map((m) => m.data), ['2', '4', '5']);
  for (const m of passed.messages) {
    const same = all.messages.find((other) => other.data === m.data);
    assert.deepEqual([m.id, m.serial, m.timestamp, m.connectionId], [same.id, same.serial, same.timestamp, same.connectionId]);
  }
  await fetch(`${httpURL}/apps/${app.appId}`, {
    method: 'DELETE',
    headers: { Authorization: `Basic ${Buffer.from(app.keys[0].keyStr).toString('base64')}` },
  });
});

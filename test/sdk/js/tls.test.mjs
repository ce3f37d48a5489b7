// TLS, as SDKs use it unless they are told otherwise: over WebSockets, comet and REST.

import assert from 'node:assert/strict';
import { inBothFormats, inFormat, reaches, soon, subscribed, tlsPort, unique } from './helpers.mjs';

const secure = { tls: true, tlsPort };
const transport = (client) => client.connection.connectionManager.activeProtocol.transport;

// RSC18
inBothFormats('messages cross from TLS to plaintext and back', async ({ connected, rest }) => {
  const name = unique('tls');
  const inside = (await connected({ ...secure, transports: ['web_socket'] })).channels.get(name);
  const outside = (await connected({ transports: ['web_socket'] })).channels.get(name);
  assert.match(transport(inside.client).uri, /^wss:/);
  const boxes = [await subscribed(inside), await subscribed(outside)];
  const values = ['text äöü 🙂', { a: [1, null] }, Buffer.from([0, 1, 255]), 'x'.repeat(60000)];
  for (const [i, data] of values.entries()) await soon([inside, outside][i % 2].publish('n', data), 'a publish');
  await soon(rest(secure).channels.get(name).publish('n', 'by REST'), 'a publish');
  for (const box of boxes) assert.deepEqual((await box.count(5)).map((m) => m.data), [...values, 'by REST']);
  const page = await soon(rest(secure).channels.get(name).history(), 'history');
  assert.equal(page.items.length, 5);
});

inBothFormats('a thousand messages at once arrive in order over TLS', async ({ connected }) => {
  const name = unique('tls');
  const box = await subscribed((await connected(secure)).channels.get(name));
  const publisher = (await connected(secure)).channels.get(name);
  const wanted = Array.from({ length: 1000 }, (_, i) => `${i}`);
  await soon(Promise.all(wanted.map((data) => publisher.publish('n', data))), 'all publishes');
  assert.deepEqual((await box.count(1000)).map((m) => m.data), wanted);
});

// RTN15c6
inBothFormats('a connection over TLS is resumed after a cut, and loses nothing', async ({ connected }) => {
  const name = unique('tls');
  const client = await connected({ ...secure, disconnectedRetryTimeout: 50 });
  const publisher = (await connected()).channels.get(name);
  const box = await subscribed(client.channels.get(name));
  const { id } = client.connection;
  const lost = reaches(client.connection, 'disconnected');
  transport(client).wsConnection.terminate();
  await lost;
  await soon(publisher.publish('n', 'meanwhile'), 'a publish');
  await reaches(client.connection, 'connected');
  assert.equal((await box.count(1))[0].data, 'meanwhile');
  assert.equal(client.connection.id, id);
});

for (const stream of [true, false]) {
  inFormat(`comet over TLS (${stream ? 'streaming' : 'polling'})`, false, async ({ connected }) => {
    const client = await connected({ ...secure, transports: ['comet'], transportParams: stream ? {} : { stream: false } });
    assert.equal(transport(client).shortName, 'comet');
    const channel = client.channels.get(unique('tls'));
    const box = await subscribed(channel);
    await soon(channel.publish('n', 'over comet'), 'a publish');
    assert.equal((await box.count(1))[0].data, 'over comet');
  });
}

import * as Ably from "ably";

const realtime = new Ably.Realtime({
  key: "letshr.local0:letshare-local-key-published-do-not-deploy", // printed by the server
  endpoint: "localhost",
  port: Number(process.env.PORT ?? 8080),
  tls: false,
});

const channel = realtime.channels.get("demo");
await channel.attach();
const received = new Promise((resolve) => channel.subscribe("greeting", resolve));
await channel.publish("greeting", { text: "hello from JavaScript" });

const message = await received;
console.log(message.name, message.data.text);
realtime.close();

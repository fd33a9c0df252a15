// The least that shows a camera: JPEG images of camera 0.
const state = document.getElementById("state");
const view = document.getElementById("view");

async function enter() {
  const token = new URLSearchParams(location.hash.slice(1)).get("t");
  if (!token) return;
  await fetch("/api/session", { method: "POST", body: JSON.stringify({ token }) });
  history.replaceState(null, "", "/");
}

await enter();
const socket = new WebSocket(location.origin.replace("http", "ws") + "/ws", "ape-stream.v1");
socket.binaryType = "arraybuffer";
const send = (message) => socket.send(JSON.stringify(message));
socket.onopen = () => send({ type: "hello" });
socket.onclose = () => (state.textContent = "the connection is closed");
socket.onmessage = async ({ data }) => {
  if (typeof data === "string") {
    const message = JSON.parse(data);
    if (message.type === "welcome") {
      state.textContent = message.cams.map((cam) => cam.name).join(", ");
      send({ type: "sub", cam: 0, masks: false });
    }
    return;
  }
  const head = new DataView(data);
  const start = 40 + head.getUint32(32, true) + head.getUint32(36, true);
  const image = await createImageBitmap(new Blob([data.slice(start)], { type: "image/jpeg" }));
  [view.width, view.height] = [image.width, image.height];
  view.getContext("2d").drawImage(image, 0, 0);
  image.close();
  send({ type: "ack", cam: head.getUint16(4, true), seq: head.getUint32(8, true) });
};

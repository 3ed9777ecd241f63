// What the pages share: the socket with its frames, and the keys that are down.

const RETRY_MS = 1000;
const FAILED = 4000; // the code with which the server closes a socket when the session has failed
const FAILED_TEXT = "The game has failed and is over. The terminal says why.";
const LOST_TEXT = "The connection is lost. Trying again ...";

// Sets a text only where it changes, so that a screen reader does not read it again.
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// Fills a list of definitions with pairs of what is pressed and what it does.
export function listKeys(list, keys) {
  list.replaceChildren(
    ...keys.flatMap(([press, does]) => {
      const names = [document.createElement("dt"), document.createElement("dd")];
      names[0].textContent = press;
      names[1].textContent = does;
      return names;
    }),
  );
}

// Opens the page's socket, and opens it again whenever it is lost, unless the session has failed.
// `greeted` gets what is told once, `shown` the status of each frame, `lost` a text that says why
// there are no more. Returns a function that sends a message, or nothing while there is no socket.
export function connect(canvas, { greeted, shown, lost }) {
  const context = canvas.getContext("2d", { alpha: false });
  let socket;
  let keys = []; // that are down

  function send(message) {
    keys = message.keys ?? keys;
    if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
  }

  // A frame: the length of its status, 4 bytes; the status, JSON; a PNG.
  async function draw(bytes) {
    const size = new DataView(bytes).getUint32(0);
    const status = JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, 4, size)));
    const picture = await createImageBitmap(new Blob([new Uint8Array(bytes, 4 + size)]));
    if (canvas.width !== picture.width || canvas.height !== picture.height) {
      canvas.width = picture.width;
      canvas.height = picture.height;
    }
    context.drawImage(picture, 0, 0);
    picture.close();
    return status;
  }

  function open() {
    const own = new WebSocket(new URL("socket", location.href.replace(/^http/, "ws")));
    own.binaryType = "arraybuffer";
    own.onopen = () => {
      if (document.hidden) send({ visible: false });
      if (keys.length) send({ held: keys });
    };
    own.onmessage = async ({ data }) => {
      if (typeof data === "string") {
        greeted(JSON.parse(data));
        return;
      }
      const status = await draw(data);
      if (own !== socket) return;
      shown(status);
      send({ shown: status.frame }); // only then does the next one come
    };
    own.onclose = ({ code }) => {
      socket = undefined; // a frame that is still being drawn is not shown
      const failed = code === FAILED;
      lost(failed ? FAILED_TEXT : LOST_TEXT);
      if (!failed) setTimeout(open, RETRY_MS);
    };
    socket = own;
  }

  document.addEventListener("visibilitychange", () => send({ visible: !document.hidden }));
  open();
  return send;
}

const CODES = {
  ArrowLeft: "left", ArrowRight: "right", ArrowUp: "up", ArrowDown: "down",
  KeyA: "left", KeyD: "right", KeyW: "up", KeyS: "down", Space: "jump",
};

// Watches the keyboard and the buttons with data-key and data-do. `changed` gets the keys that are
// down, as often as that changes; `command` what a letter of `letters` or a data-do says.
export function watchKeys(letters, { changed, command }) {
  const held = new Map(); // what holds it (a key of the keyboard, a finger) -> key
  let told = "";

  function tell() {
    const keys = [...new Set(held.values())].sort();
    if (keys.join() === told) return;
    told = keys.join();
    changed(keys);
  }

  function releaseAll() {
    held.clear();
    document.querySelectorAll("button.down").forEach((button) => button.classList.remove("down"));
    tell();
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input") && event.code.startsWith("Arrow")) return; // they are its own
    const letter = letters[event.key.toLowerCase()];
    const key = CODES[event.code];
    if (letter) {
      if (!event.repeat) command(letter);
    } else if (key && !(event.code === "Space" && event.target.closest("button"))) {
      event.preventDefault(); // the page does not scroll
      held.set(event.code, key);
      tell();
    }
  });
  document.addEventListener("keyup", (event) => {
    held.delete(event.code);
    tell();
  });
  window.addEventListener("blur", releaseAll);
  document.addEventListener("visibilitychange", releaseAll);

  for (const button of document.querySelectorAll("button[data-key]")) {
    const { key } = button.dataset;
    button.addEventListener("pointerdown", (event) => {
      button.setPointerCapture(event.pointerId);
      button.classList.add("down");
      held.set(event.pointerId, key);
      tell();
    });
    for (const end of ["pointerup", "pointercancel"]) {
      button.addEventListener(end, (event) => {
        button.classList.remove("down");
        held.delete(event.pointerId);
        tell();
      });
    }
    button.addEventListener("contextmenu", (event) => event.preventDefault());
    button.addEventListener("click", (event) => {
      if (event.detail !== 0) return; // a pointer, seen above; what follows is the keyboard's
      held.set(button, key);
      tell();
      held.delete(button);
      tell();
    });
  }
  for (const button of document.querySelectorAll("button[data-do]")) {
    button.addEventListener("click", (event) => {
      command(button.dataset.do);
      if (event.detail !== 0) button.blur(); // so that space jumps again
    });
  }
}

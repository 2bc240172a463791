/**
 * A picture to search by: chosen, dropped anywhere on the page, or pasted. It is sent, not stored. The
 * last one stays in this page's memory for whoever follows a result and comes back.
 */

import { icon } from "../components/icons.js";
import { toast } from "../components/toast.js";
import { fill, h } from "../dom.js";
import { bytes } from "../format.js";

/** {file, name}: `name` also stands in the entry of the browser's history that searched by it. */
let last = null;

/** pictureInput({signal, onpicture(file)}) → {element, file()}; it holds what this entry of the history searched by. */
export function pictureInput({ signal, onpicture }) {
  let file = last && history.state?.picture === last.name ? last.file : null;
  const chosen = h("input", { class: "unseen", type: "file", accept: "image/*", onchange: () => take(chosen.files[0]) });
  const inside = h("span", { class: "drop-inside" });
  const element = h("label", { class: "drop" }, chosen, inside);
  if (file) preview();
  else invite();

  function invite() {
    fill(inside, icon("upload"), h("span", {}, h("strong", {}, "Choose a picture"), h("span", { class: "soft" }, ", drop it anywhere on this page, or paste it")));
  }

  function take(next) {
    if (!next) return;
    if (next.type && !next.type.startsWith("image/")) return void toast(`“${next.name}” is no picture, but ${next.type}`);
    file = next;
    last = { file, name: String(performance.now()) };
    history.replaceState({ ...history.state, picture: last.name }, "");
    preview();
    onpicture(file);
  }

  async function preview() {
    const image = h("img", { alt: "", draggable: "false" });
    const words = h("span", { class: "drop-words" }, h("strong", { class: "cut" }, file.name || "Pasted picture"),
      h("span", { class: "small soft" }, `${bytes(file.size)}. Choose, drop or paste another`));
    fill(inside, words);
    const source = URL.createObjectURL(file);
    try {
      image.src = source;
      await image.decode();
      fill(inside, image, words);
    } catch {
      // Formats that the browser cannot show (HEIC, some TIFF) may still be read by Imagewire.
    } finally {
      URL.revokeObjectURL(source);
    }
  }

  const hasFile = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  document.addEventListener("dragover", (event) => {
    if (!hasFile(event)) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
    element.classList.add("is-over");
  }, { signal });
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) element.classList.remove("is-over"); }, { signal });
  document.addEventListener("drop", (event) => {
    if (!hasFile(event)) return;
    event.preventDefault();
    element.classList.remove("is-over");
    take(event.dataTransfer.files[0]);
  }, { signal });
  document.addEventListener("paste", (event) => {
    const pasted = [...(event.clipboardData?.files ?? [])].find((one) => one.type.startsWith("image/"));
    if (!pasted) return;
    event.preventDefault();
    take(pasted);
  }, { signal });

  return { element, file: () => file };
}

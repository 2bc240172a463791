/**
 * Making elements. What comes from records (labels, text that was read in pictures, ids, metadata)
 * is written by strangers, so nothing in the console makes markup of strings: children become text
 * nodes, and an address becomes a link only if its scheme is harmless.
 */

const SVG = "http://www.w3.org/2000/svg";
const LINKABLE = new Set(["http:", "https:", "blob:"]);

/**
 * h("button", {class: "button", onclick: save}, "Save", null, [more, children])
 *
 * Properties: `class`, `data: {name: value}`, `on…` (a listener), `style: {left: "3px"}` (through
 * CSSOM, which the content security policy allows; a style attribute it does not), and attributes;
 * `true` sets an empty attribute, `false`, `null` and `undefined` leave it out.
 * Children: nodes, strings, numbers, arrays of them; `null`, `undefined` and `false` are skipped.
 */
export function h(tag, properties = {}, ...children) {
  return made(document.createElement(tag), properties, children);
}

/** The same for SVG elements. */
export function s(tag, properties = {}, ...children) {
  return made(document.createElementNS(SVG, tag), properties, children);
}

function made(element, properties, children) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "data") Object.assign(element.dataset, value);
    else if (name === "style") setStyle(element, value);
    else if (name === "value" && "value" in element) element.value = value;
    else if (name === "href") setAddress(element, value);
    else if (name === "srcdoc") throw new TypeError("srcdoc makes markup of a string");
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  append(element, children);
  return element;
}

function setStyle(element, style) {
  for (const [name, value] of Object.entries(style)) {
    if (name.startsWith("--")) element.style.setProperty(name, value);
    else element.style[name] = value;
  }
}

function setAddress(element, address) {
  if (linkable(address)) element.setAttribute("href", address);
}

/** Whether following `address` cannot run a script: `javascript:` and `data:` can. */
export function linkable(address) {
  try {
    return LINKABLE.has(new URL(address, document.baseURI).protocol);
  } catch {
    return false;
  }
}

/** Appends children as h() takes them. */
export function append(element, ...children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : String(child));
  }
  return element;
}

/** Puts children in the place of what `element` holds. */
export function fill(element, ...children) {
  element.replaceChildren();
  return append(element, ...children);
}

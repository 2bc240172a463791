/** Image: everything known of one image, beside the picture it was found in. */

import { address, get, post } from "../api.js";
import { linkButton } from "../components/controls.js";
import { copyButton } from "../components/copy.js";
import { empty, failed, loading, notice } from "../components/states.js";
import { tile } from "../components/tiles.js";
import { badge } from "../components/verdict.js";
import { fill, h } from "../dom.js";
import { score } from "../format.js";
import { hrefOf } from "../route.js";
import { factsCard, historyCard, jsonCard, metadataCard } from "./image_facts.js";
import { facesCard, matchesCard, objectsCard, scoresCard, textsCard, verdictCard } from "./image_findings.js";
import { Stage } from "./image_stage.js";

const NEIGHBOURS = 12;

export async function show(page, { argument: id, query, signal, setQuery, setTitle }) {
  if (!id) {
    return void fill(page, empty({ title: "Which image?", detail: "Choose one on the wall, or search for it.",
      actions: [linkButton({ text: "Live", icon: "live", href: hrefOf("live") }), linkButton({ text: "Search", icon: "search", href: hrefOf("search") })] }));
  }
  setTitle(`Image ${id}`);
  const verdict = h("span", { class: "push" });
  const body = h("div", {}, loading(6, "Loading the image"));
  fill(page, h("div", { class: "page-head image-head" },
    h("h1", {}, "Image ", h("span", { class: "image-id mono soft" }, id)), copyButton(id, "Copy the id"), verdict), body);
  const known = await get(address`v1/images/${id}`, { feed: query.get("feed") }, { signal });
  fill(verdict, badge(known.image.verdict, { large: true, by: known.image.decided_by }));
  fill(body, known.failure && failureCard(known.failure), known.findings ? whole(known, { query, signal, setQuery }) : withoutFindings(known));
}

function whole(known, { query, signal, setQuery }) {
  const { image, findings } = known;
  const stage = new Stage({ image, findings, query, signal, setQuery });
  const pointAt = (layer, index) => stage.light(layer, index);
  return [
    h("div", { class: "image-view" },
      stage.element,
      h("div", { class: "image-side stack" },
        verdictCard(image, findings),
        matchesCard(findings),
        objectsCard(findings, pointAt),
        textsCard(findings, pointAt),
        facesCard(findings, pointAt),
        scoresCard(findings))),
    neighbours(image, signal),
    h("div", { class: "image-more" },
      h("div", { class: "stack" }, historyCard(known.history), metadataCard(findings.metadata)),
      factsCard(image, findings)),
    jsonCard(known),
  ];
}

/** Fetched or decoded in vain, or erased: what is stored besides findings. */
function withoutFindings(known) {
  return h("div", { class: "stack" }, factsCard(known.image, {}), historyCard(known.history), jsonCard(known));
}

function failureCard({ stage, reason, detail }) {
  return h("div", { class: "image-failure" }, notice(h("div", {}, h("strong", {}, `Failed at ${stage}: ${reason}`), detail && h("div", {}, detail)), "error"));
}

function neighbours(image, signal) {
  const strip = h("div", { class: "strip", tabindex: 0, role: "group", "aria-label": "Nearest neighbours" }, loading(1, "Looking for neighbours"));
  const card = h("section", { class: "card" },
    h("header", {}, h("h2", {}, "Nearest neighbours"), h("a", { class: "small", href: hrefOf("search", "", { image_id: image.image_id }) }, "Search from here")),
    h("div", { class: "card-body" }, strip));
  look();
  return card;

  async function look() {
    try {
      const { results } = await post("v1/search", { image_id: image.image_id, limit: NEIGHBOURS + 1 }, { signal });
      const others = results.filter((one) => one.image_id !== image.image_id).slice(0, NEIGHBOURS);
      fill(strip, others.length ? others.map((one) => tile(one, { signal, aside: likeness(one) }))
        : empty({ icon: "search", title: "No neighbours yet", detail: "Nothing else is stored that could be compared.", slim: true }));
    } catch (problem) {
      if (!signal.aborted) fill(strip, failed(problem, { slim: true, again: look }));
    }
  }
}

function likeness({ score: cosine, copies }) {
  return h("span", { title: "Cosine of the two embeddings; 1 is the same picture" }, score(cosine), copies > 1 && ` · ${copies}×`);
}

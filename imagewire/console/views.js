/**
 * The views, in the order of the rail. Each is a module of its own, loaded when it is first opened.
 * `name` is the first part of the address after the hash, `letter` what is typed after g to go there;
 * a view without `letter` has no place in the rail and lights up that of `below`.
 */
export const VIEWS = [
  { name: "live", letter: "l", title: "Live", icon: "live", load: () => import("./views/live.js") },
  { name: "search", letter: "s", title: "Search", icon: "search", load: () => import("./views/search.js") },
  { name: "review", letter: "r", title: "Review", icon: "review", load: () => import("./views/review.js") },
  { name: "sql", letter: "q", title: "SQL", icon: "sql", load: () => import("./views/sql.js") },
  { name: "policy", letter: "p", title: "Policy and models", tabTitle: "Policy", icon: "policy", load: () => import("./views/policy.js") },
  { name: "image", title: "Image", icon: "image", below: "live", load: () => import("./views/image.js") },
];

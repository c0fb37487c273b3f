// SPDX-License-Identifier: Apache-2.0
// Keeps the page live: takes in the server's HTML as it changes, so that what
// the reader has selected, opened, focused or typed stays.
'use strict';

const live = document.getElementById('live');
const link = document.getElementById('link');
let events, query = new URLSearchParams(location.search).get('q') || '';

// become turns one element into another of the same kind.
function become(now, next) {
  for (const {name, value} of next.attributes)
    if (now.getAttribute(name) !== value) now.setAttribute(name, value);
  for (const {name} of [...now.attributes])
    if (!next.hasAttribute(name) && name !== 'open') now.removeAttribute(name);
  const kept = new Map([...now.children].filter(e => e.id).map(e => [e.id, e]));
  for (const child of next.children) if (kept.has(child.id)) kept.get(child.id).stays = true;
  for (const e of kept.values()) {
    if (!e.stays) e.remove();
    delete e.stays;
  }
  let at = now.firstChild;
  for (const child of [...next.childNodes]) {
    let match = at;
    if (child.id) { // rows and sections keep their identity
      match = kept.get(child.id);
      if (match && match !== at) now.insertBefore(match, at);
    } else if (at && (at.id || at.nodeName !== child.nodeName)) {
      match = null;
    }
    if (!match) {
      now.insertBefore(document.importNode(child, true), at);
      continue;
    }
    if (match.nodeType !== Node.ELEMENT_NODE) {
      if (match.data !== child.data) match.data = child.data;
    } else if (!match.isEqualNode(child)) {
      become(match, child);
    }
    at = match.nextSibling;
  }
  while (at) {
    const gone = at;
    at = at.nextSibling;
    gone.remove();
  }
}

function say(word) {
  if (link.textContent !== word) link.textContent = word;
}

function open() {
  if (events) events.close();
  events = new EventSource('live?q=' + encodeURIComponent(query));
  events.onopen = () => say('live');
  events.onmessage = e => {
    const next = document.createElement('main');
    next.append(...new DOMParser().parseFromString(e.data, 'text/html').body.childNodes);
    next.id = 'live';
    become(live, next);
  };
  events.onerror = () => say(events.readyState === EventSource.CLOSED
    ? 'not live: the page is open too often, or its dashboard has ended'
    : 'not live: is “boxer dashboard” still running? Trying again …');
}

function find(words) {
  if (words === query) return;
  query = words;
  history.replaceState(null, '', words ? '?q=' + encodeURIComponent(words) : './');
  open();
}

let typing;
live.addEventListener('input', e => {
  if (e.target.id !== 'q') return;
  clearTimeout(typing);
  typing = setTimeout(() => find(e.target.value), 150);
});
live.addEventListener('submit', e => {
  e.preventDefault();
  find(document.getElementById('q').value);
});
live.addEventListener('click', e => {
  const a = e.target.closest('.states a');
  if (!a || e.ctrlKey || e.metaKey || e.shiftKey) return;
  e.preventDefault();
  const words = new URL(a.href).searchParams.get('q') || '';
  document.getElementById('q').value = words;
  find(words);
});

document.documentElement.classList.add('scripted');
open();

/** The lists of documents are open until the reader closes them: typedoc's own are closed at first, and the front page would show nothing of what there is to read. */
for (const name of ['Guides', 'How it works', 'API']) {
  const key = `tsd-accordion-${name}`;
  if (localStorage.getItem(key) !== null) continue;
  // What is drawn later goes by this; what is there already is opened.
  localStorage.setItem(key, 'true');
  for (const summary of document.querySelectorAll('.tsd-navigation summary')) {
    if (summary.dataset.key === name) summary.parentElement.open = true;
  }
}

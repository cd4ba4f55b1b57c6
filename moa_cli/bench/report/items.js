// Hides the items that do not hold all words that are typed.
const box = document.querySelector("input[type=search]");
const items = [...document.querySelectorAll("article")].map((item) => [
  item,
  item.textContent.toLowerCase(),
]);
box.addEventListener("input", () => {
  const words = box.value.toLowerCase().split(/\s+/);
  for (const [item, text] of items) {
    item.classList.toggle("unfound", !words.every((word) => text.includes(word)));
  }
});

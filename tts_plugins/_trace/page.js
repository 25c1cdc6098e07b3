// Nothing here is needed for reading: it opens and closes all details, and saves the trace that the page holds.
for (const button of document.querySelectorAll("button[hidden]")) button.hidden = false;
document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.open !== undefined) {
    for (const part of button.closest("section").querySelectorAll("details")) part.open = button.dataset.open === "1";
  } else if (button.dataset.save) {
    const text = document.getElementById(button.dataset.save).textContent;
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
    link.download = button.dataset.save + ".json";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }
});
// A link into something closed opens what is around it, in browsers that do not do so by themselves.
const reveal = () => {
  let part = document.getElementById(location.hash.slice(1));
  for (; part; part = part.parentElement) {
    if (part.tagName === "DETAILS") part.open = true;
    if (part.previousElementSibling && part.previousElementSibling.tagName === "SUMMARY") part.parentElement.open = true;
  }
};
addEventListener("hashchange", reveal);
reveal();

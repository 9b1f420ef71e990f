// Formulas: typeset offline by the MathJax that lies beside this file; code, tables of numbers and navigation are left alone.
window.MathJax = {
  tex: { inlineMath: [["$", "$"], ["\\(", "\\)"]], processEscapes: true },
  svg: { scale: 0.94 },
  options: { enableMenu: false, skipHtmlTags: ["script", "noscript", "style", "textarea", "pre", "code", "button", "svg"] },
};

// One button shows or folds the code of the whole page; each cell can be opened by itself.
document.addEventListener("DOMContentLoaded", () => {
  const button = document.getElementById("show-code");
  const cells = [...document.querySelectorAll("details.code")];
  if (!button || !cells.length) return;
  const label = () => {
    const open = cells.every((cell) => cell.open);
    button.textContent = open ? "Fold all code" : "Show all code";
    button.setAttribute("aria-pressed", String(open));
  };
  button.hidden = false;
  button.addEventListener("click", () => {
    const open = !cells.every((cell) => cell.open);
    cells.forEach((cell) => { cell.open = open; });
    label();
  });
  cells.forEach((cell) => cell.addEventListener("toggle", label));
  label();
});

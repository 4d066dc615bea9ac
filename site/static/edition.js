// What is wider than its place scrolls, and can be reached with the keyboard.
function reach() {
  for (const part of document.querySelectorAll("pre, .table-wrapper, .math-wrapper"))
    if (part.scrollWidth > part.clientWidth) part.tabIndex = 0;
    else part.removeAttribute("tabindex");
}
addEventListener("load", reach);
addEventListener("resize", reach);

readAnswers().then(data => new Explorer(data), error => {
  const section = document.getElementById("samples");
  section.setAttribute("aria-busy", "false");
  section.querySelector("[data-testid=count]").textContent = `The answers can't be read: ${error.message}`;
});

"use strict";
// The key that somebody enters stays in the page's memory: Swagger UI stores it only if told to.
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  displayRequestDuration: true,
  tryItOutEnabled: true,
  // Without it, the page would send its address to a validator on the Internet.
  validatorUrl: null,
});

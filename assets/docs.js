// The page at /docs: Swagger UI on this service's own description. Nothing here or in it asks another host.
const darkScheme = matchMedia('(prefers-color-scheme: dark)')
const followScheme = () => document.documentElement.classList.toggle('dark-mode', darkScheme.matches)
darkScheme.addEventListener('change', followScheme)
followScheme()

// Swagger UI fills in the example of a parameter, and sends it. Of one that may be left out, it only tells.
function tellExample(_key, part) {
  if (!part?.in || part.required || part.example === undefined) return part
  const { example, description, ...rest } = part
  return { ...rest, description: `${description} For example: \`${example}\`` }
}
const tellExamples = (update) => (description) => update(JSON.parse(JSON.stringify(description), tellExample))

SwaggerUIBundle({
  url: '/openapi.json',
  dom_id: '#swagger-ui',
  presets: [SwaggerUIBundle.presets.apis],
  plugins: [() => ({ statePlugins: { spec: { wrapActions: { updateJsonSpec: tellExamples } } } })],
  layout: 'BaseLayout',
  validatorUrl: 'none',
  deepLinking: true,
  displayRequestDuration: true,
})

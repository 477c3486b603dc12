import { Hono } from 'hono'
import { html } from 'hono/html'
import { assetPath, serveAsset } from './assets.ts'
import type { Env } from './env.ts'
import { page } from './page.ts'

/** Swagger UI, in which a person reads the description of the service and tries it. It brings its landmark `main`. */
const swaggerUi = () => html`<link rel="stylesheet" href="${assetPath('swagger-ui.css')}">
<div id="swagger-ui">
  <noscript><p class="card narrow">This needs JavaScript. <a href="/openapi.json">openapi.json</a> says the same.</p></noscript>
</div>
<script src="${assetPath('swagger-ui-bundle.js')}"></script><script src="${assetPath('docs.js')}"></script>`

/** `/docs`, and the files that this and other pages load. Not part of the API, so not of its type. */
export const docs = (): Hono<Env> =>
  new Hono<Env>().get('/assets/:hash/:name', serveAsset).get('/docs', (c) => page(c, 'API reference', swaggerUi()))

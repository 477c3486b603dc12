import { html } from 'hono/html'
import { sentencesOf } from '../http/page.ts'
import type { Problem } from '../http/problem.ts'
import { FIELDS, type User } from './schemas.ts'

const LABELS = { usernamePrefix: 'Username starts with', username: 'Username', email: 'Email' }
type Name = keyof typeof LABELS
const LOOK_UPS = ['usernamePrefix', ...FIELDS] as const

/** The forms, by the last part of their path. */
export const FORMS = {
  new: { title: 'Add a user', button: 'Add user' },
  edit: { title: 'Edit the user', button: 'Save' },
  delete: { title: 'Delete this user?', button: 'Delete' },
}
export type FormName = keyof typeof FORMS

/** What the fields of a form hold. `etag` names the version that was shown. */
export type Values = Partial<Record<Name | 'etag', string>>

/** The values of a form, why it comes again, and the user as it is by now. */
export type Form = { values: Values; problem?: Problem | undefined; stored?: Values }

/** A field, and what is wrong with it. It is not of the type email, in which browsers rewrite what is typed. */
function input(name: Name, { values, problem, stored }: Form, attribute = '') {
  const label = LABELS[name]
  const fault =
    stored && stored[name] !== values[name]
      ? html`is <bdi>${stored[name]}</bdi> by now`
      : problem?.options.errors?.find(({ pointer }) => pointer === `/${name}`)?.detail
  return html`<div class="field">
    <label for="${name}">${label}</label>
    <p class="fault" id="${name}-fault">${fault && html`${label} ${fault}`}</p>
    <input id="${name}" name="${name}" value="${values[name]}" ${attribute} ${fault && 'autofocus'}
      inputmode="${name === 'email' ? name : 'text'}" dir="auto" autocomplete="off" autocapitalize="none" spellcheck="false"
      aria-invalid="${String(Boolean(fault))}" aria-describedby="${name}-fault">
  </div>`
}

/** A form on a card of its own. What is wrong with a field stands there, all else above. */
export function formView(name: FormName, form: Form) {
  const { title, button } = FORMS[name]
  const { values, problem } = form
  return html`<main class="card narrow">
    ${problem && !problem.options.errors && html`<p class="alert" role="alert">${sentencesOf(problem)}</p>`}
    <h1>${title}</h1>
    ${name === 'delete' && html`<p>This cannot be undone.</p>`}
    <form method="post" novalidate>
      ${FIELDS.map((field) => input(field, form, name === 'delete' ? 'readonly' : ''))}
      <input type="hidden" name="etag" value="${values.etag}">
      <p class="actions"><button class="button primary ${name}">${button}</button>
        <a class="button" href="/users">Cancel</a></p>
    </form>
  </main>`
}

const row = ({ id, username, email, createdAt }: User) => html`<tr id="user-${id}">
  <td class="person"><span class="avatar" aria-hidden="true">${[...username][0]}</span>
    <bdi>${username}</bdi> <bdi class="email">${email}</bdi></td>
  <td class="day"><time datetime="${createdAt}">${createdAt.slice(0, 10)}</time></td>
  <td class="links"><a href="/users/${id}/edit" aria-label="Edit ${username}">Edit</a>
    <a href="/users/${id}/delete" aria-label="Delete ${username}">Delete</a></td>
</tr>`

const table = (users: User[], order: string) => html`<table>
  <caption class="unseen">Users, by ${order}</caption>
  <thead><tr><th>User</th><th class="day">Added</th><th><span class="unseen">Change</span></th></tr></thead>
  <tbody>${users.map(row)}</tbody>
</table>`

const lookUp = (name: Name, values: Values) =>
  html`<form class="look-up" role="search" aria-label="Look up: ${LABELS[name]}">
  ${input(name, { values }, 'required')}<button class="button">Look up</button>
</form>`

/** A page of the list. `query` is what asked for it, `next` the path of the page after it, `open` whether nobody has to log in. */
export function listView(users: User[], next: string | null, query: Record<string, string>, open: boolean) {
  const isPart = Object.keys(query).length > 0
  const none = html`<p class="empty">${isPart ? 'No user was found.' : 'There are no users yet.'}</p>`
  const order = query.usernamePrefix ? 'username' : 'the time when they were added'
  return html`<main>
    <div class="head"><h1>Users</h1><a class="button primary" href="/users/new">Add a user</a></div>
    <div class="look-ups">${LOOK_UPS.map((name) => lookUp(name, query))}</div>
    <div class="card list">${users.length > 0 ? table(users, order) : none}</div>
    <p class="pages">
      ${isPart && html`<a class="button" href="/users">Back to the first page</a>`}
      ${next && html`<a class="button next" rel="next" href="${next}">Next page</a>`}
    </p>
    ${open && html`<p class="hint">Authentication is off: everyone who reaches this page may read and change every user.</p>`}
  </main>`
}

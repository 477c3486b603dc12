import { html } from 'hono/html'
import { type Html, retrySentence } from '../http/page.ts'
import type { Problem } from '../http/problem.ts'
import { USERNAME_MAX_LENGTH, type User } from './schemas.ts'

const FIELDS = {
  username: { label: 'Username', hint: `Up to ${USERNAME_MAX_LENGTH} characters. Nobody else may have it.` },
  email: { label: 'Email', hint: 'An address that mail can reach. Nobody else may have it.' },
}
type Field = keyof typeof FIELDS
const NAMES = ['username', 'email'] as const

/** What a form holds, as text. `etag` names the version that it shows; `key` makes sending it twice safe. */
export type FormValues = Partial<Record<Field | 'etag' | 'key', string>>

/** The forms, by the last part of their path, and what is said once they have done it. */
export const FORMS = {
  new: { title: 'Add a user', button: 'Add user', fields: inputs, after: 'The user was added.' },
  edit: { title: 'Edit the user', button: 'Save', fields: inputs, after: 'The change was saved.' },
  delete: { title: 'Delete this user?', button: 'Delete', fields: shown, after: 'The user was deleted.' },
}
export type FormName = keyof typeof FORMS

export type Form = {
  values: FormValues
  /** Why the form comes again. */
  problem?: Problem | undefined
  /** The user as it is now, where the form began with an older version. */
  present?: User | undefined
}

const faultOf = (problem: Problem | undefined, field: Field) =>
  problem?.options.errors?.find(({ pointer }) => pointer === `/${field}`)?.detail

/** A field, and what is wrong with it. It is not of the type email, in which browsers rewrite what is typed. */
function input(field: Field, { values, problem }: Form, hint?: string): Html {
  const { label } = FIELDS[field]
  const fault = faultOf(problem, field)
  const describedBy = [hint && `${field}-hint`, fault && `${field}-fault`].filter(Boolean).join(' ')
  return html`<div class="field">
    <label for="${field}">${label}</label>
    ${hint && html`<p class="hint" id="${field}-hint">${hint}</p>`}
    ${fault && html`<p class="fault" id="${field}-fault">${label} ${fault}</p>`}
    <input id="${field}" name="${field}" value="${values[field]}" inputmode="${field === 'email' ? 'email' : 'text'}" dir="auto"
      autocomplete="off" autocapitalize="none" spellcheck="false" aria-invalid="${String(Boolean(fault))}" aria-describedby="${describedBy}">
  </div>`
}

function inputs(form: Form) {
  return html`${NAMES.map((field) => input(field, form, FIELDS[field].hint))}`
}

/** What a form does not change, it sends along: so that a later version can be compared with it. */
function shown({ values }: Form): Html {
  return html`<p class="person"><bdi>${values.username}</bdi><span class="email"><bdi>${values.email}</bdi></span></p>
    <p>This cannot be undone.</p>
    ${NAMES.map((field) => html`<input type="hidden" name="${field}" value="${values[field]}">`)}`
}

function sentenceOf(problem: Problem): string {
  const { status, message, options } = problem
  if (status === 503)
    return `The database cannot be reached. Nothing you sent is lost or done twice. ${retrySentence(problem)}`
  if (status === 412) return 'Someone has changed this user since you opened it.'
  return options.type === 'idempotency-key-reused'
    ? 'This form has added a user. Send it again to add another.'
    : message
}

/** Takes the focus: it is read out first, and the keyboard goes on from there. */
function summary(problem: Problem): Html {
  const faults = NAMES.filter((field) => faultOf(problem, field))
  const links = faults.map(
    (field) => html`<li><a href="#${field}">${FIELDS[field].label} ${faultOf(problem, field)}</a></li>`,
  )
  return html`<div class="alert" role="alert" tabindex="-1" autofocus>
    ${faults.length > 0 ? html`<p>Please correct this:</p><ul>${links}</ul>` : html`<p>${sentenceOf(problem)}</p>`}
  </div>`
}

const comparison = (yours: FormValues, now: User) => html`<table class="versions">
  <caption>Your version, and the one that is stored now</caption>
  <thead><tr><td></td><th scope="col">Yours</th><th scope="col">Now</th></tr></thead>
  <tbody>${NAMES.map(
    (field) => html`<tr>
    <th scope="row">${FIELDS[field].label}</th><td><bdi>${yours[field]}</bdi></td><td><bdi>${now[field]}</bdi></td>
  </tr>`,
  )}</tbody>
</table>`

/** A form on a card of its own. `cancel` leads back without sending it. */
export function formView(name: FormName, form: Form, cancel: string): Html {
  const { title, button, fields } = FORMS[name]
  const { values, problem, present } = form
  return html`<main class="card narrow">
    ${problem && summary(problem)}
    <h1>${title}</h1>
    ${present && comparison(values, present)}
    <form method="post" novalidate>
      ${fields(form)}
      <input type="hidden" name="etag" value="${values.etag}"><input type="hidden" name="key" value="${values.key}">
      <p class="actions"><button class="button primary ${name}">${present ? `${button} all the same` : button}</button><a class="button" href="${cancel}">Cancel</a></p>
    </form>
  </main>`
}

const HUES = 6

function row({ id, username, email, createdAt }: User, search: string): Html {
  const name = html`<bdi>${username}</bdi>`
  const link = (verb: string) =>
    html`<a href="/users/${id}/${verb.toLowerCase()}${search}">${verb}<span class="unseen"> ${name}</span></a>`
  return html`<tr id="user-${id}">
    <td><div class="user"><span class="avatar hue-${id % HUES}" aria-hidden="true">${[...username][0]}</span>
      <span class="person">${name}<span class="email"><bdi>${email}</bdi></span></span></div></td>
    <td class="day"><time datetime="${createdAt}">${new Date(createdAt).toLocaleDateString('en-GB', { dateStyle: 'medium', timeZone: 'UTC' })}</time></td>
    <td class="links">${link('Edit')} ${link('Delete')}</td>
  </tr>`
}

export type List = {
  users: User[]
  /** What is looked up. */
  sought: FormValues
  problem?: Problem | undefined
  /** The form that led here. */
  done?: FormName | undefined
  /** The path of the next page. */
  next?: string | undefined
  /** The query of this page, if it is not the first. */
  search: string
}

function emptyList({ sought, search, problem }: List): Html {
  if (problem) return html`<p>Nothing was looked up.</p>`
  if (sought.username || sought.email)
    return html`<p>No user has exactly this ${NAMES.filter((field) => sought[field]).join(' and this ')}.</p>`
  return search
    ? html`<p>There are no more users.</p>`
    : html`<p><strong>There are no users yet</strong></p>
  <p>Add the first one here, or try a POST in the <a href="/docs">API reference</a>.</p>`
}

const table = ({ users, search }: List) => html`<table>
  <caption class="unseen">Users, by the time when they were added</caption>
  <thead><tr><th scope="col">User</th><th scope="col" class="day">Added</th><th scope="col"><span class="unseen">Change</span></th></tr></thead>
  <tbody>${users.map((user) => row(user, search))}</tbody>
</table>`

export function listView(list: List): Html {
  const { users, sought: values, problem, done, next, search } = list
  const isPart = Boolean(search || values.username || values.email)
  return html`<main>${done && html`<p class="done" role="status">${FORMS[done].after}</p>`}
    ${problem && summary(problem)}
    <div class="head"><h1>Users</h1><a class="button primary" href="/users/new">Add a user</a></div>
    <form class="look-up" role="search" aria-label="Look up a user">
      ${NAMES.map((field) => input(field, { values, problem }))}<button class="button">Look up</button>
    </form>
    <div class="card list">${users.length > 0 ? table(list) : html`<div class="empty">${emptyList(list)}</div>`}</div>
    ${
      (isPart || next) &&
      html`<nav class="pages" aria-label="Pages">
      ${isPart && html`<a class="button" href="/users">Back to the first page</a>`}
      ${next && html`<a class="button next" rel="next" href="${next}">Next page</a>`}</nav>`
    }</main>`
}

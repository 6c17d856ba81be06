/* Sets and removes header fields of requests and responses, as the configuration says. */
#include "json.h"
#include "postern.h"

#define MOST 64

/* Fields that every request gets. */
static postern_field set[MOST];
static size_t set_count;
/* Fields that no response keeps. */
static postern_text removed[MOST];
static size_t removed_count;

static const char *read_set(postern_text value) {
  postern_json walk = postern_json_open(value);
  postern_text key, item;
  while (postern_json_next(&walk, &key, &item)) {
    if (set_count == MOST) return "set: more than 64 fields";
    if (!postern_json_text(item, &item)) return "set: a value is not a text";
    set[set_count++] = (postern_field){postern_keep(key), postern_keep(item)};
  }
  return walk.is_bad || !walk.is_object ? "set: not an object" : NULL;
}

static const char *read_remove(postern_text value) {
  postern_json walk = postern_json_open(value);
  postern_text key, item;
  while (postern_json_next(&walk, &key, &item)) {
    if (removed_count == MOST) return "remove: more than 64 names";
    if (!postern_json_text(item, &item)) return "remove: a name is not a text";
    removed[removed_count++] = postern_keep(item);
  }
  return walk.is_bad || walk.is_object ? "remove: not a list" : NULL;
}

const char *policy_configure(postern_text config, postern_setup *setup) {
  (void)setup;
  postern_json walk = postern_json_open(config);
  postern_text key, value;
  const char *refusal = NULL;
  while (refusal == NULL && postern_json_next(&walk, &key, &value)) {
    if (postern_text_is(key, "set")) {
      refusal = read_set(value);
    } else if (postern_text_is(key, "remove")) {
      refusal = read_remove(value);
    } else {
      refusal = "unknown key; known are set and remove";
    }
  }
  return walk.is_bad ? "not an object" : refusal;
}

postern_action policy_on_request(const postern_view *view) {
  (void)view;
  for (size_t i = 0; i < set_count; i++) {
    postern_must(postern_request_set(set[i].name, set[i].value));
  }
  return POSTERN_GO_ON;
}

postern_action policy_on_response(const postern_view *view) {
  (void)view;
  for (size_t i = 0; i < removed_count; i++) postern_must(postern_response_remove(removed[i]));
  return POSTERN_GO_ON;
}

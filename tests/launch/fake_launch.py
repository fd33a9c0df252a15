"""A launch and launch_ros that only record, as strict about keywords as the real ones.

Signatures follow the sources of launch and launch_ros (Jazzy). `Service` does what LaunchService
would: it declares arguments, expands substitutions, and keeps the commands and events.
"""

import importlib.util
import sys
import types

CHANGES = {1: "configure", 3: "activate"}


class Substitution:
    def perform(self, context):
        raise NotImplementedError


class LaunchConfiguration(Substitution):
    def __init__(self, variable_name, *, default=None):
        self.name = variable_name

    def perform(self, context):
        return context.values[self.name]  # undeclared: a KeyError, as in the real one


class ThisLaunchFileDir(Substitution):
    def perform(self, context):
        return str(context.folder)


class PathJoinSubstitution(Substitution):
    def __init__(self, substitutions):
        self.parts = substitutions

    def perform(self, context):
        return "/".join(text(part, context) for part in self.parts)


def text(value, context):
    assert isinstance(value, (str, Substitution)), f"{value!r} is neither text nor a substitution"
    return value.perform(context) if isinstance(value, Substitution) else value


class IfCondition:
    def __init__(self, predicate_expression):
        self.expression = predicate_expression

    def evaluate(self, context):
        value = text(self.expression, context).lower()
        assert value in ("true", "false", "1", "0"), value
        return value in ("true", "1")


class Action:
    def __init__(self, *, condition=None):
        self.condition = condition


class LaunchDescription:
    def __init__(self, initial_entities=None):
        self.entities = list(initial_entities or [])


class LaunchContext:
    pass


class DeclareLaunchArgument(Action):
    def __init__(self, name, *, default_value=None, description=None, choices=None):
        super().__init__()
        self.name, self.default, self.description = name, default_value, description
        assert default_value is None or isinstance(default_value, (str, Substitution))


class OpaqueFunction(Action):
    def __init__(self, *, function, args=None, kwargs=None):
        super().__init__()
        self.function = function


class EmitEvent(Action):
    def __init__(self, *, event, condition=None):
        super().__init__(condition=condition)
        self.event = event


class GroupAction(Action):
    """What is configured inside is forgotten at its end."""

    def __init__(self, actions, *, condition=None):
        super().__init__(condition=condition)
        self.actions = actions


class PushRosNamespace(Action):
    def __init__(self, namespace):
        super().__init__()
        self.namespace = namespace


class RegisterEventHandler(Action):
    def __init__(self, event_handler, condition=None):
        super().__init__(condition=condition)
        self.handler = event_handler


class PythonLaunchDescriptionSource:
    def __init__(self, launch_file_path):
        self.path = launch_file_path


class IncludeLaunchDescription(Action):
    def __init__(self, launch_description_source, *, launch_arguments=None):
        super().__init__()
        self.source, self.arguments = launch_description_source, list(launch_arguments or [])


class Node(Action):
    def __init__(
        self, *, executable, package=None, name=None, namespace=None, exec_name=None,
        parameters=None, remappings=None, ros_arguments=None, arguments=None, output=None,
        condition=None, respawn=False, respawn_delay=None,
    ):  # fmt: skip
        super().__init__(condition=condition)
        self.package, self.executable, self.name = package, executable, name
        self.namespace, self.arguments = namespace, list(arguments or [])
        self.respawn_s = respawn_delay if respawn else None
        self.remappings = list(remappings or [])
        self.parameters = list(parameters or [])

    def command(self, context):
        words = [text(word, context) for word in self.arguments] + ["--ros-args"]
        if self.name is not None:
            words += ["-r", f"__node:={text(self.name, context)}"]
        # As launch_ros joins them: an absolute namespace goes before what was pushed.
        own, pushed = text(self.namespace or "", context), context.values.get("ros_namespace", "")
        parts = [own] if own.startswith("/") else [pushed, own]
        full = "/".join(part.strip("/") for part in parts if part.strip("/"))
        if self.namespace is not None or pushed:
            words += ["-r", f"__ns:=/{full}"]
        for values in self.parameters:
            assert all(values.values()), f"empty parameters: {values}"
            words += [word for k, v in values.items() for word in ("-p", f"{k}:={v}")]
        for old, new in self.remappings:
            words += ["-r", f"{text(old, context)}:={text(new, context)}"]
        return [f"{self.package}/{self.executable}", *words]


class LifecycleNode(Node):
    def __init__(self, *, name, namespace, **options):
        super().__init__(name=name, namespace=namespace, **options)


class OnStateTransition:
    def __init__(
        self, *, entities, target_lifecycle_node=None, transition=None, start_state=None,
        goal_state=None, matcher=None,
    ):  # fmt: skip
        assert isinstance(target_lifecycle_node, LifecycleNode)
        self.entities, self.states = entities, (start_state, goal_state)


class ChangeState:
    def __init__(self, *, lifecycle_node_matcher, transition_id):
        assert callable(lifecycle_node_matcher)
        self.matcher, self.change = lifecycle_node_matcher, CHANGES[transition_id]


class Transition:
    TRANSITION_CONFIGURE, TRANSITION_ACTIVATE = 1, 3


def matches_action(target_action):
    return lambda action: action is target_action


MODULES = {
    "launch": (LaunchDescription, LaunchContext),
    "launch.actions": (
        DeclareLaunchArgument, EmitEvent, GroupAction, IncludeLaunchDescription, OpaqueFunction,
        RegisterEventHandler,
    ),
    "launch.conditions": (IfCondition,),
    "launch.events": (matches_action,),
    "launch.launch_description_sources": (PythonLaunchDescriptionSource,),
    "launch.substitutions": (LaunchConfiguration, PathJoinSubstitution, ThisLaunchFileDir),
    "launch_ros": (),
    "launch_ros.actions": (LifecycleNode, Node, PushRosNamespace),
    "launch_ros.event_handlers": (OnStateTransition,),
    "launch_ros.events": (),
    "launch_ros.events.lifecycle": (ChangeState,),
    "lifecycle_msgs": (),
    "lifecycle_msgs.msg": (Transition,),
}  # fmt: skip


def install(patch):
    for name, content in MODULES.items():
        module = types.ModuleType(name)
        for one in content:
            setattr(module, one.__name__, one)
        patch.setitem(sys.modules, name, module)


def describe(path):
    spec = importlib.util.spec_from_file_location("under_test", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.generate_launch_description()


class Service:
    """What happens when a launch file is launched with these arguments."""

    def __init__(self, path, given, around=lambda entities: entities):
        self.values, self.folder = dict(given), path.parent
        self.commands, self.changes, self.nodes, self._handlers = [], [], [], []
        self._visit(around(describe(path).entities))

    @property
    def launch_configurations(self):
        return self.values

    def _visit(self, entities):
        for entity in entities:
            assert isinstance(entity, Action), entity
            if entity.condition is None or entity.condition.evaluate(self):
                self._do(entity)

    def _do(self, entity):
        match entity:
            case DeclareLaunchArgument():
                if entity.name not in self.values:
                    assert entity.default is not None, f"{entity.name} must be given"
                    self.values[entity.name] = text(entity.default, self)
            case Node():
                self.nodes.append(entity)
                self.commands.append(entity.command(self))
            case OpaqueFunction():
                self._visit(entity.function(self) or [])
            case RegisterEventHandler():
                self._handlers.append(entity.handler)
            case EmitEvent():
                assert sum(entity.event.matcher(node) for node in self.nodes) == 1
                self.changes.append(entity.event.change)
            case IncludeLaunchDescription():
                self.values |= {key: text(value, self) for key, value in entity.arguments}
                self._visit(describe(text(entity.source.path, self)).entities)
            case GroupAction():
                before = dict(self.values)
                self._visit(entity.actions)
                self.values = before
            case PushRosNamespace():
                pushed = self.values.get("ros_namespace", "").strip("/")
                self.values["ros_namespace"] = "/".join(filter(None, [pushed, entity.namespace]))

    def transition(self, start, goal):
        for handler in self._handlers:
            if handler.states == (start, goal):
                self._visit(handler.entities)
